"""Tests memory relief with a real model: evicted prefixes are restored from disk."""

from pathlib import Path

import mlx.core as mx

from pensieve.engine.worker.memory_relief import IDLE_S, MemoryRelief
from tests.mlx.scheduler_bench import Bench, prompt_of, reference
from tests.support import tiny_architectures


def test_stored_prefix_leaves_memory_when_idle_and_is_restored(
    tmp_path: Path,
) -> None:
    model = tiny_architectures.build("llama")
    bench = Bench(model, tmp_path)
    now_s = [0.0]
    relief = MemoryRelief(
        bench.scheduler, bench.prefix_cache, mx.clear_cache, clock=lambda: now_s[0]
    )
    prompt = prompt_of(600)
    (answer,) = bench.run(prompt, max_tokens=4)

    now_s[0] = IDLE_S
    relief.step()
    assert bench.prefixes.nbytes > 0
    assert mx.get_cache_memory() == 0

    bench.spill()
    relief.step()
    assert bench.prefixes.nbytes == 0
    second = (*prompt, *answer, 5)
    assert bench.run(second, max_tokens=4) == [reference(model, second, 4)]
    assert bench.cached == [len(prompt) + len(answer)]
    bench.prefix_cache.close()
