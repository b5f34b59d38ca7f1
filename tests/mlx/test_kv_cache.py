"""Tests that one layer's KV cache allocates what the budget counts, whatever its history."""

import random

import mlx.core as mx
import pytest

from pensieve.engine.model.kv.window import KEPT_TOKENS, WindowKVCache
from pensieve.engine.model.kv_cache import SequenceKVCache
from pensieve.engine.model.kv_layers import layer_arrays, layer_from_arrays
from pensieve.engine.planning.kv_precision import FULL, KVPrecision
from pensieve.engine.planning.memory_plan import WINDOW_SPARE_TOKENS, KVBudget, grown_tokens

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


WINDOW = 20


def check_window(cache: WindowKVCache, tokens: int) -> None:
    """Compare attention of the newest tokens with that over all tokens and a mask of the window."""
    scale, end = 0.1, cache.offset
    queries = mx.random.normal((1, HEADS, tokens, HEAD_DIM), key=mx.random.key(end))
    every = filled(SequenceKVCache(), end)
    keys, values = every.arrays(0, end)
    at = mx.arange(end - tokens, end)[:, None]
    mask = (mx.arange(end) <= at) & (mx.arange(end) > at - WINDOW)
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    assert mx.allclose(cache.attend(queries, scale), expected, atol=0.02).item()


def test_window_sees_the_same_tokens_whatever_was_appended_rewound_trimmed_and_copied() -> None:
    choose, cache = random.Random(1), WindowKVCache(WINDOW)
    starts: set[int] = set()
    for _ in range(250):
        tokens = choose.choice([1, 1, 1, 7, 32, 300])
        filled(cache, tokens)
        check_window(cache, min(tokens, 40))
        match choose.randrange(6):
            case 0:
                cache.rewind(choose.randrange(tokens))
            case 1 if cache.can_trim(cache.offset - 200):
                cache.trim(200)
            case 2:
                cache = cache.copy(cache.offset, choose.choice([0, KEPT_TOKENS]))
        starts.add(cache.start)
        assert cache.can_trim(cache.offset)
        assert cache.is_whole
    assert len(starts) > 30


def test_window_is_trimmed_within_what_it_holds() -> None:
    cache = filled(WindowKVCache(WINDOW), *[1] * 2000)
    least = cache.start + WINDOW
    assert 2000 - least >= KEPT_TOKENS
    assert (cache.can_trim(least), cache.can_trim(least - 1)) == (True, False)
    cache.trim(2000 - least)
    check_window(cache, 1)
    short = filled(WindowKVCache(WINDOW), 100)
    assert short.can_trim(1)
    short.trim(99)
    check_window(filled(short, 5), 5)


def test_window_allocates_what_is_counted_and_less_after_its_sequence_left_the_batch() -> None:
    cache = WindowKVCache(WINDOW)
    for tokens in (1, 2048, *[1] * 600):
        filled(cache, tokens)
        most = WINDOW + WINDOW_SPARE_TOKENS + (tokens if tokens > 1 else 0)
        assert cache.nbytes <= token_bytes(FULL) * most
    cache.trim(0)
    assert cache.nbytes <= token_bytes(FULL) * (WINDOW + KEPT_TOKENS)
    assert cache.copy(cache.offset, 0).nbytes == token_bytes(FULL) * WINDOW


def test_mask_of_another_window_is_refused() -> None:
    cache = WindowKVCache(WINDOW)
    assert cache.make_mask(3, WINDOW) == "causal"
    with pytest.raises(ValueError, match="20 tokens, not 21"):
        cache.make_mask(3, WINDOW + 1)
    with pytest.raises(ValueError, match="no window"):
        SequenceKVCache().make_mask(3, WINDOW)


@pytest.mark.parametrize(
    ("keys", "values", "tokens", "expected"),
    [
        (30, 30, 100, True),
        (7, 7, 7, True),
        (30, 29, 100, False),
        (19, 19, 100, False),
        (30, 30, 29, False),
    ],
)
def test_window_from_stored_arrays_is_whole_if_they_cover_it(
    keys: int, values: int, tokens: int, expected: bool
) -> None:
    arrays = [mx.zeros((1, HEADS, length, HEAD_DIM)) for length in (keys, values)]
    cache = WindowKVCache.from_arrays(arrays, WindowKVCache(WINDOW), tokens)
    assert cache.is_whole is expected
