"""Decoding at one stream: raw mlx-lm, pensieve through HTTP and mlx_lm.server in turns, an answer each, all three loaded at once.

usage: python -m benchmarks.turns [--device cpu|gpu] [--model FOLDER | --shape tiny|phi3|wide] [--turns 25] [--no-disk]

What others take of a shared machine swings by half within a minute: of turns, the median of the ratios is what holds.
`--no-disk` has pensieve keep nothing on disk, which otherwise writes each answer while the next one runs.
"""

# pyright: basic

import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.engine import RAW_LOOP, Bench, argument_parser, calibrate, make_model
from pensieve.engine.client.launch import worker_variables

# Between two answers: what the one before leaves to be done is done.
_PAUSE_S = 0.2

RAW_TURNS = (
    RAW_LOOP
    + """
run(60, 256)
for _ in sys.stdin:
    print(run(60, 256)[1], flush=True)
"""
)


@contextlib.contextmanager
def raw_loop(bench: Bench) -> Iterator[subprocess.Popen[str]]:
    """mlx-lm's own loop in a process that decodes once for every line that it is sent."""
    command = [sys.executable, "-c", RAW_TURNS, str(bench.folder), bench.device]
    environment = bench.environment | worker_variables(bench.device)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True) as process:
        yield process
        process.stdin.close()


def raw_rate(process: subprocess.Popen[str]) -> float:
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


async def rates(bench: Bench, turns: int) -> dict[str, list[float]]:
    """Tokens per second of each, turn by turn."""
    with contextlib.ExitStack() as running:
        raw = running.enter_context(raw_loop(bench))
        # First alone: the kernels that it compiles are there for the others.
        raw_rate(raw)
        ours = running.enter_context(bench.pensieve())
        theirs = running.enter_context(bench.mlx_lm_server())
        found: dict[str, list[float]] = {"raw mlx-lm": [], ours.name: [], theirs.name: []}
        for server in (ours, theirs):
            await bench.decode_rate(server, 1)
        for _ in range(turns):
            found["raw mlx-lm"].append(raw_rate(raw))
            for server in (ours, theirs):
                await asyncio.sleep(_PAUSE_S)
                found[server.name].append(await bench.decode_rate(server, 1))
            await asyncio.sleep(_PAUSE_S)
    return found


def line(name: str, own: list[float], raw: list[float]) -> str:
    low, middle, high = statistics.quantiles(own, n=4)
    ratio = statistics.median(one / other for one, other in zip(own, raw, strict=True))
    figures = "".join(f"{figure:10.1f}" for figure in (min(own), low, middle, high, max(own)))
    return f"{name:16}{figures}{ratio:10.3f}"


async def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--turns", default=25, type=int)
    parser.add_argument("--no-disk", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        folder = arguments.model or make_model(arguments.shape, home / "model")
        calibrate(folder)
        bench = Bench(folder, arguments.device, home)
        if arguments.no_disk:
            bench.environment["PENSIEVE_CACHE_GB"] = "0"
        found = await rates(bench, arguments.turns)
    heads = ("least", "quarter", "median", "3/4", "most", "of raw")
    print(f"{'tokens/s':16}" + "".join(f"{head:>10}" for head in heads))
    for name, own in found.items():
        print(line(name, own, found["raw mlx-lm"]))


if __name__ == "__main__":
    asyncio.run(main())
