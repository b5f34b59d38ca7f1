"""Decode rate (tokens/s) at one stream: raw mlx-lm, pensieve over HTTP and mlx_lm.server in turns.

usage: python -m benchmarks.decode_rate [--device cpu|gpu] [--model FOLDER | --shape tiny|phi3|wide]
    [--turns 25] [--no-disk]
All three are loaded at once and answer one after another. The speed of a shared machine varies by
half within a minute, so that the median of each turn's ratio is the result. `--no-disk` turns off
pensieve's disk cache, which otherwise writes each answer while the next one runs.
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

# Between two answers, for the work after an answer.
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
    """Run mlx-lm's loop in a process that decodes once per line of its input."""
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
    """Return the tokens/s of each turn."""
    with contextlib.ExitStack() as running:
        raw = running.enter_context(raw_loop(bench))
        # Alone first: it compiles kernels for the others.
        raw_rate(raw)
        ours = running.enter_context(bench.pensieve())
        theirs = running.enter_context(bench.mlx_lm_server())
        results: dict[str, list[float]] = {"raw mlx-lm": [], ours.name: [], theirs.name: []}
        for server in (ours, theirs):
            await bench.decode_rate(server, 1)
        for _ in range(turns):
            results["raw mlx-lm"].append(raw_rate(raw))
            for server in (ours, theirs):
                await asyncio.sleep(_PAUSE_S)
                results[server.name].append(await bench.decode_rate(server, 1))
            await asyncio.sleep(_PAUSE_S)
    return results


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
        results = await rates(bench, arguments.turns)
    heads = ("minimum", "quarter", "median", "3/4", "maximum", "of raw")
    print(f"{'tokens/s':16}" + "".join(f"{head:>10}" for head in heads))
    for name, own in results.items():
        print(line(name, own, results["raw mlx-lm"]))


if __name__ == "__main__":
    asyncio.run(main())
