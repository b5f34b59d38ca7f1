"""Runs a batch once before the first request, so that no request waits for kernels to be compiled.
Pure but for the clock.

MLX's CUDA build compiles a kernel when a size range of its products is first used, and keeps it on
disk (`MLX_PTX_CACHE_DIR`): minutes at the first start on a machine, seconds later. A burst of eight
requests on an empty cache was taken for a wedged worker after 50 s (H200, 2026-11). The front end
hears of every step (engine/long_operations.py).
"""

import time
from collections.abc import Callable

from pensieve.engine.generation import Generation
from pensieve.engine.long_operations import Platform
from pensieve.engine.scheduling.backend import Backend
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer

# No step begins later than this. Metal's kernels come compiled, and a worker that wakes up should
# be quick.
MAX_SECONDS: dict[Platform, float] = {"cuda": 240.0, "metal": 2.0, "cpu": 0.0}
# Prompt tokens of the one large chunk; a slow Mac needs 2 s for 128.
CHUNK_TOKENS: dict[Platform, int] = {"cuda": 512, "metal": 128, "cpu": 128}
# What a prompt's last pass may have, so that a chunk and its rest are two passes (engine/model/batch.py).
_REST_TOKENS = 32
_ANY_TOKEN = 1


class FixedChunks(ChunkSizer):
    """Takes no notice of time: what a step takes that compiles says nothing of later ones."""

    def next_chunk(self, before: int, *, is_shared: bool) -> int:
        return self.largest_chunk


def prompts_of(chunk_tokens: int, rows: int) -> list[int]:
    """Lengths of prompts that make a chunk, passes of 32, 16 and 1 tokens, and 1 to `rows` rows."""
    return [chunk_tokens + _REST_TOKENS, 16, *[1] * 6][:rows]


def warm_up(
    backend: Backend,
    prompts: list[int],
    most_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Step until all prompts decode together, or time is up; close the backend.

    Return how many steps were made.
    """
    end_s = clock() + most_s
    for key, tokens in enumerate(prompts):
        # So many tokens that none of them ends meanwhile.
        backend.insert(key, Generation((_ANY_TOKEN,) * tokens, max_tokens=len(prompts) + 3), None)
    steps = 0
    # The first prompt takes two steps, each other one, and one more is the batch of all.
    while steps < len(prompts) + 2 and clock() < end_s:
        backend.step()
        steps += 1
    backend.close()
    return steps
