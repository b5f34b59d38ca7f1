"""The real worker loop in a real process over a counting backend, for tests of the front end's side of the engine.

Run as `python -m tests.engine.scripted_worker FD`. The model folder's name is the script: "no-model" does not load,
"dies-at-start" never gets so far. A grammar "bad" does not compile, "slow" does as soon as somebody asks for "release". A sequence that begins with token 666 kills the process when it is 5 long; with 667, it hangs.
"""

import os
import signal
import socket
import sys
import threading
from concurrent.futures import Future

from pensieve.engine.anteroom import Anteroom
from pensieve.engine.budget import KVBudget
from pensieve.engine.generation import Figures, Grammar
from pensieve.engine.line import Limits
from pensieve.engine.prefix_cache import PrefixCache
from pensieve.engine.protocol import Load, Loaded, LoadFailed
from pensieve.engine.scheduler import Scheduler
from pensieve.engine.worker import FrontEnd, FrontEndGoneError, Work, serve
from pensieve.errors import GrammarError
from tests.engine.counting_backend import BYTES_PER_TOKEN, CountingBackend

KILLER = 666
WEDGER = 667
CONTEXT_TOKENS = 2**20


def misbehave(tokens: tuple[int, ...]) -> bool:
    if tokens[0] == KILLER and len(tokens) >= 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if tokens[0] == WEDGER and len(tokens) >= 5:
        threading.Event().wait()
    return False


class ScriptedGrammars:
    """Compiles by name."""

    def __init__(self) -> None:
        self._slow: list[Future[None]] = []

    def prepare(self, grammar: Grammar) -> Future[None]:
        compiled: Future[None] = Future()
        match grammar.lark:
            case "bad":
                compiled.set_exception(GrammarError("nothing matches it"))
            case "slow":
                self._slow.append(compiled)
            case _:
                compiled.set_result(None)
        if grammar.lark == "release":
            for waiting in self._slow:
                waiting.set_result(None)
            self._slow.clear()
        return compiled


def main(socket_fd: int) -> None:
    front_end = FrontEnd(socket.socket(fileno=socket_fd))
    (load,) = front_end.receive(None)
    assert isinstance(load, Load)
    if load.model_folder == "dies-at-start":
        sys.exit(3)
    if load.model_folder == "no-model":
        front_end.send(LoadFailed("no weights here"))
        return
    budget = KVBudget(CONTEXT_TOKENS * BYTES_PER_TOKEN, BYTES_PER_TOKEN)
    scheduler = Scheduler(
        lambda: CountingBackend(misbehave),
        PrefixCache(b"scripted"),
        budget,
        Limits(max_batch=2, max_waiting=2),
    )
    work = Work(
        scheduler,
        CONTEXT_TOKENS,
        Anteroom(ScriptedGrammars().prepare),
        lambda rate: Figures(
            8, "by script", 1, 2, 3, scheduler.kv_used_bytes, tokens_per_second=rate
        ),
    )
    front_end.send(work.figures(0.0))
    front_end.send(Loaded(0.1, CONTEXT_TOKENS))
    serve(front_end, work)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    except FrontEndGoneError:
        sys.exit(0)
