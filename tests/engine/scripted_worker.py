"""The real main loop in a real process over a counting backend, for tests of the engine client.

Run as `python -m tests.engine.scripted_worker [SCRIPT] FD`. The script defaults to the name of the
model folder: "no-model" reports that the model does not load, "dies-at-start" exits with code 3,
"killed-at-start" kills itself, "never-loads" waits for ever, "hangs-in-loading" announces one part
and waits, "loads-slowly" announces several parts, "stubborn" ignores `Unload`, "roomy" has a long
queue, "dies-in-preload" kills itself at the first part of a preload, ".../appears" does not load
until that file exists.

The grammar "bad" does not compile; "slow" compiles once "release" is submitted. A sequence of five
tokens that begins with 666 kills the process; with 667 it hangs; with 668 it announces a step and
takes `STEP_S` for it; with 669 it announces a step and hangs.
"""

import os
import signal
import socket
import sys
import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from pensieve.engine.generation import EngineStats, Grammar, SpeculationState
from pensieve.engine.grammar.queue import GrammarQueue
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.protocol import Load, Loaded, LoadFailed
from pensieve.engine.scheduling.prefix_cache import PrefixCache
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from pensieve.engine.worker.context import WorkerContext
from pensieve.engine.worker.worker import FrontEnd, FrontEndGoneError, serve
from pensieve.errors import GrammarError
from tests.engine.counting_backend import BYTES_PER_TOKEN, CountingBackend

KILLER = 666
HANGING = 667
SLOW = 668
STUCK = 669
STEP_S = 1.0
STEP_TIMEOUT_S = 3.0
PARTS = 6
PART_S = 0.2
PART_TIMEOUT_S = 1.0
CONTEXT_TOKENS = 2**20
SPECULATION = SpeculationState("no_width_pays", 16, 14.1)


def pause(seconds: float | None = None) -> None:
    threading.Event().wait(seconds)


def misbehave(front_end: FrontEnd, tokens: tuple[int, ...]) -> bool:
    if len(tokens) != 5:
        return False
    if tokens[0] == KILLER:
        os.kill(os.getpid(), signal.SIGKILL)
    if tokens[0] == HANGING:
        pause()
    if tokens[0] == SLOW:
        front_end.announce("processing slowly", STEP_TIMEOUT_S)
        pause(STEP_S)
    if tokens[0] == STUCK:
        front_end.announce("processing for ever", STEP_S)
        pause()
    return False


def load_slowly(front_end: FrontEnd) -> None:
    for part in range(PARTS):
        front_end.announce(f"reading the weights ({part} of {PARTS})", PART_TIMEOUT_S)
        pause(PART_S)


def preload(load: Load) -> None:
    if load.model_folder == "dies-in-preload" and load.has_preload:
        os.kill(os.getpid(), signal.SIGKILL)


class ScriptedGrammars:
    """Compiles or fails by the grammar's name."""

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


def main(socket_fd: int, script: str = "") -> None:
    front_end = FrontEnd(socket.socket(fileno=socket_fd))
    (load,) = front_end.receive(None)
    assert isinstance(load, Load)
    script = script or load.model_folder
    if script == "killed-at-start":
        os.kill(os.getpid(), signal.SIGKILL)
    if script == "dies-at-start":
        sys.exit(3)
    if script == "never-loads":
        front_end.receive(None)
    if script == "no-model" or (script.endswith("/appears") and not Path(script).exists()):
        front_end.send(LoadFailed("no weights here"))
        return
    if script == "hangs-in-loading":
        front_end.announce("reading the weights (3.2 of 16.1 GB)", 0.1)
        pause()
    if script == "loads-slowly":
        load_slowly(front_end)
    budget = KVBudget(CONTEXT_TOKENS * BYTES_PER_TOKEN, BYTES_PER_TOKEN)
    scheduler = Scheduler(
        lambda: CountingBackend(partial(misbehave, front_end)),
        TieredPrefixCache(PrefixCache(b"scripted")),
        budget,
        QueueLimits() if script == "roomy" else QueueLimits(max_batch=2, max_waiting=2),
    )
    context = WorkerContext(
        scheduler,
        CONTEXT_TOKENS,
        GrammarQueue(ScriptedGrammars().prepare),
        lambda: EngineStats(
            *(8, "by script", 1, 2, 3, scheduler.kv_used_bytes),
            queued=scheduler.queued,
            running=scheduler.running,
            preempted=scheduler.preempted,
        ),
    )
    context.preload = partial(preload, load)
    front_end.send(context.read_stats())
    front_end.send(Loaded(0.1, CONTEXT_TOKENS, SPECULATION))
    serve(front_end, context)
    if script == "stubborn":
        threading.Event().wait()


if __name__ == "__main__":
    try:
        main(int(sys.argv[-1]), *sys.argv[1:-1])
    except FrontEndGoneError:
        sys.exit(0)
