"""Runs a batch once before the first request, so that no request waits for kernels to compile. Pure
except for the clock.

MLX's CUDA build compiles a kernel when a size range of its products is first used, and caches it on
disk (`MLX_PTX_CACHE_DIR`): minutes at the first start on a machine, seconds later. Eight requests
at once on an empty cache were taken for a hung worker after 50 s (H200, 2026-11), so every step is
announced to the front end (engine/long_operations.py).
"""

import time
from collections.abc import Callable

from pensieve.engine.generation import Generation
from pensieve.engine.long_operations import Platform
from pensieve.engine.scheduling.backend import Backend
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer

# No step begins later. Metal's kernels come compiled, and a worker should start quickly after an
# idle period.
MAX_SECONDS: dict[Platform, float] = {"cuda": 240.0, "metal": 2.0, "cpu": 0.0}
# Prompt tokens of the one large chunk; a slow Mac needs 2 s for 128.
CHUNK_TOKENS: dict[Platform, int] = {"cuda": 512, "metal": 128, "cpu": 128}
# A remainder of this size is a pass of its own after the chunk (engine/model/batch.py).
_REMAINDER_TOKENS = 32
_ANY_TOKEN = 1


class FixedChunks(ChunkSizer):
    def next_chunk(self, before: int, *, is_shared: bool) -> int:
        # Time is ignored: a step that compiles is no measure of later ones.
        return self.max_chunk


def prompts_of(chunk_tokens: int, rows: int) -> list[int]:
    """Return prompt lengths for a chunk, passes of 32, 16 and 1 tokens, and 1 to `rows` rows."""
    return [chunk_tokens + _REMAINDER_TOKENS, 16, *[1] * 6][:rows]


def warm_up(
    backend: Backend,
    prompts: list[int],
    max_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Step until all prompts decode together or `max_s` is over, then close the backend.

    Return the number of steps.
    """
    end_s = clock() + max_s
    steps = 0
    # Two steps for the first prompt, one for each other, and one for the whole batch. The prompts
    # come one by one: together they would share a pass.
    for number in range(len(prompts) + 2):
        if clock() >= end_s:
            break
        if number != 1 and (key := max(0, number - 1)) < len(prompts):
            # Enough tokens that no sequence finishes before the last prompt is in.
            generation = Generation((_ANY_TOKEN,) * prompts[key], max_tokens=len(prompts) + 3)
            backend.insert(key, generation, None)
        backend.step()
        steps += 1
    backend.close()
    return steps
