"""Tests that one layer's KV cache allocates what the budget counts, whatever its history."""

import mlx.core as mx
import pytest

from pensieve.engine.model.kv_cache import SequenceKVCache
from pensieve.engine.model.kv_layers import layer_arrays, layer_from_arrays
from pensieve.engine.planning.kv_precision import FULL, KVPrecision
from pensieve.engine.planning.memory_plan import KVBudget, grown_tokens

HEADS, HEAD_DIM = 2, 64
PRECISIONS = [FULL, KVPrecision(8, 64), KVPrecision(4, 64, is_rotated=True)]


def token_bytes(precision: KVPrecision) -> int:
    return int(2 * HEADS * HEAD_DIM * precision.bytes_per_value(2))


def filled(cache: SequenceKVCache, *chunks: int) -> SequenceKVCache:
    """Append as many tokens as the chunks together; each value encodes its position."""
    for tokens in chunks:
        positions = mx.arange(cache.offset, cache.offset + tokens, dtype=mx.float32)[:, None]
        values = mx.broadcast_to(positions / 64, (1, HEADS, tokens, HEAD_DIM)).astype(mx.bfloat16)
        cache.append(values, -values)
    mx.eval(cache.state)
    return cache


@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda precision: str(precision.bits))
@pytest.mark.parametrize("chunks", [(1,), (2048, 2048, 700), (3000, *[1] * 300), (256, 1, 1791)])
def test_allocated_bytes_equal_the_budgets(precision: KVPrecision, chunks: tuple[int, ...]) -> None:
    budget = KVBudget(10**9, token_bytes(precision), max_tokens=5000)
    cache = filled(SequenceKVCache(precision, max_tokens=5000), *chunks)
    assert cache.nbytes == budget.sequence(sum(chunks))


@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda precision: str(precision.bits))
def test_trimmed_cache_allocates_what_is_counted(precision: KVPrecision) -> None:
    cache = filled(SequenceKVCache(precision), 4100)
    before = [mx.array(array) for array in cache.arrays(0, 4000)]
    assert cache.trim(100) == 100
    mx.eval(cache.state)
    assert cache.nbytes == token_bytes(precision) * grown_tokens(4000, 1 << 20)
    assert all(map(mx.array_equal, before, cache.arrays(0, 4000)))
    assert filled(cache, 30).offset == 4030
    assert cache.trim(9999) == 4030
    assert (cache.nbytes, cache.empty()) == (0, True)
    assert filled(cache, 3).offset == 3


def test_growing_by_single_tokens_reallocates_rarely() -> None:
    cache = filled(SequenceKVCache(FULL), 8000)
    sizes = set()
    for _ in range(2000):
        cache.append(*[mx.zeros((1, HEADS, 1, HEAD_DIM), mx.bfloat16)] * 2)
        sizes.add(cache.nbytes)
    assert len(sizes) == 3


def test_capacity_does_not_exceed_the_longest_sequence() -> None:
    cache = filled(SequenceKVCache(FULL, max_tokens=4200), 4200)
    assert cache.nbytes == token_bytes(FULL) * 4352


def test_copied_and_restored_caches_grow_like_the_original() -> None:
    cache = filled(SequenceKVCache(FULL, max_tokens=4200), 3000)
    copied = cache.copy(2900)
    restored = layer_from_arrays(cache, layer_arrays(cache, 0, 2900), 2900)
    for other in (copied, restored):
        assert filled(other, 1300).nbytes == filled(SequenceKVCache(FULL, 4200), 4200).nbytes
