"""A first start without compiled kernels: seconds of warm-up, and of a burst right after it.

usage: python -m benchmarks.first_start [--device cpu|gpu] [--model FOLDER | --shape tiny|phi3|wide]
    [--requests 8]
Printed are the states while the engine prepares kernels, then the time to first token and the
longest gap of each request. On CUDA it starts with an empty kernel cache. No request may end in an
error, and no worker may be replaced.
"""

# pyright: basic

import asyncio
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import anyio

from benchmarks.engine import argument_parser, make_model
from pensieve.engine.client.client import running_engine
from pensieve.engine.client.launch import WorkerSpec
from pensieve.engine.generation import Engine, Generation, Sampling, Token

LENGTHS = (700, 40, 12, 300, 25, 90, 1500, 8)


async def wait_until_loaded(engine: Engine, started: float) -> None:
    """Print the states of the engine while it loads."""
    printed = ""
    while (health := engine.health).state == "loading":
        if health.detail != printed:
            print(f"{time.monotonic() - started:7.1f} s  {health.detail}", flush=True)
            printed = health.detail
        await asyncio.sleep(0.02)
    print(f"{time.monotonic() - started:7.1f} s  {health.state} {health.detail}", flush=True)


async def generate(engine: Engine, length: int, began: float) -> None:
    prompt = tuple((at * at + at) % 251 + 3 for at in range(length))
    try:
        async with engine.generate(Generation(prompt, 32, sampling=Sampling(seed=1))) as events:
            arrivals = [time.monotonic() async for event in events if isinstance(event, Token)]
    except Exception as error:  # noqa: BLE001 - printed
        print(f"{length:6} tokens: {type(error).__name__}: {error}", flush=True)
        return
    gaps = [late - early for early, late in pairwise(arrivals)]
    first_s, gap_s = arrivals[0] - began, max(gaps)
    print(f"{length:6} tokens: first {first_s:6.2f} s, longest gap {gap_s:5.2f} s", flush=True)


async def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--requests", default=8, type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        folder = arguments.model or make_model(arguments.shape, home / "model")
        (home / "kernels").mkdir()
        os.environ["MLX_PTX_CACHE_DIR"] = str(home / "kernels")
        for life in ("no kernels", "kernels on disk"):
            print(f"--- {life}")
            async with running_engine(WorkerSpec(folder, arguments.device)) as engine:
                await wait_until_loaded(engine, time.monotonic())
                began = time.monotonic()
                async with anyio.create_task_group() as tasks:
                    for number in range(arguments.requests):
                        tasks.start_soon(generate, engine, LENGTHS[number % len(LENGTHS)], began)
                print(f"workers replaced: {engine.health.restarts}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
