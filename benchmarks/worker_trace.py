"""Files and functions of pensieve/engine that the worker visits for one streamed request.

usage: python benchmarks/worker_trace.py [--disk]

Runs the real main loop over a small random model, twice: for a new prompt, and for the next turn of
the same conversation, whose prefix is in memory (with --disk, in a new worker, on disk). Counted is
what runs from the request's frame to the frame of its last token; not counted is what the loop does
for others at each turn (`ASIDE`).
"""

# pyright: basic

import argparse
import contextlib
import socket
import sys
import tempfile
import threading
from pathlib import Path

from pensieve.engine.generation import Finished, Generation, ResourceLimits, Sampling
from pensieve.engine.protocol import FrameBuffer, Load, Step, Submit, encode
from pensieve.engine.worker.build import build_engine
from pensieve.engine.worker.context import WorkerContext
from pensieve.engine.worker.worker import FrontEnd, FrontEndGoneError, serve, spill_rest
from tests.support import tiny_models

ROOT = Path(__file__).parent.parent / "pensieve" / "engine"
# Memory relief, requests whose grammar compiles, and the figures of /health.
ASIDE = {"worker/memory_relief.py", "worker/stats.py", "grammar/queue.py"}
PROMPT = tuple(range(3, 250)) * 4


def trace(context: WorkerContext, prompt: tuple[int, ...]) -> dict[str, set[str]]:
    """Return the functions that one request visits, by file, in the order of the first visit."""
    ours, theirs = socket.socketpair()
    sampling = Sampling(temperature=0.7, top_p=0.9)
    ours.sendall(encode(Submit(1, Generation(prompt, 20, sampling=sampling))))
    client = threading.Thread(target=read_to_the_end, args=[ours])
    client.start()
    visited: dict[str, set[str]] = {}

    def note(frame, event: str, _) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(ROOT):
            name = file.relative_to(ROOT).as_posix()
            visited.setdefault(name, set()).add(frame.f_code.co_qualname)

    front_end = FrontEnd(theirs)
    sys.setprofile(note)
    try:
        with contextlib.suppress(FrontEndGoneError):
            serve(front_end, context)
    finally:
        sys.setprofile(None)
    client.join()
    return {file: names for file, names in visited.items() if file not in ASIDE}


def read_to_the_end(connection: socket.socket) -> None:
    frames = FrameBuffer()
    while True:
        for frame in frames.feed(connection.recv(1 << 20)):
            events = frame.events if isinstance(frame, Step) else ()
            if any(isinstance(event, Finished) for _, event in events):
                connection.close()
                return


def report(title: str, visited: dict[str, set[str]]) -> None:
    functions = sum(map(len, visited.values()))
    print(f"\n{title}: {len(visited)} files, {functions} functions")
    for file, names in visited.items():
        print(
            f"  {file:<36} {len(names):>3}  {', '.join(n for n in sorted(names) if '<' not in n)}"
        )


def main(*, uses_disk: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_models.build("qwen3", Path(folder) / "model", head_dim=32)
        prefixes = str(Path(folder) / "prefixes") if uses_disk else None
        load = Load(str(model), "cpu", prefixes, ResourceLimits(4 * 10**9))
        context = build_engine(load)
        report("a new prompt", trace(context, PROMPT))
        if uses_disk:
            spill_rest(context.spill)
            context.close()
            context = build_engine(load)
        where = "on disk" if uses_disk else "in memory"
        report(f"the next turn, its prefix {where}", trace(context, (*PROMPT, 5, 6)))
        context.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What one request visits in the worker")
    parser.add_argument("--disk", action="store_true", help="keep prefixes on disk as well")
    main(uses_disk=parser.parse_args().disk)
