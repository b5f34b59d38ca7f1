# pyright: basic
from typing import Any

import mlx.core as mx
import pytest

from pensieve.engine.model.kv.composed import composed_attention


def _window(tokens: int, seen: int, window: int) -> mx.array:
    positions = mx.arange(seen - tokens, seen)[:, None]
    keys = mx.arange(seen)[None]
    return (keys <= positions) & (keys > positions - window)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize(("tokens", "seen"), [(2, 2), (5, 40), (32, 33)])
@pytest.mark.parametrize("kind", ["none", "causal", "window"])
def test_composed_attention_equals_the_fused_one(
    kv_heads: int, tokens: int, seen: int, kind: str
) -> None:
    queries = mx.random.normal((1, 6, tokens, 16), key=mx.random.key(1))
    keys = mx.random.normal((1, kv_heads, seen, 16), key=mx.random.key(2))
    values = mx.random.normal((1, kv_heads, seen, 16), key=mx.random.key(3))
    mask: Any = {"none": None, "causal": "causal", "window": _window(tokens, seen, 3)}[kind]

    composed = composed_attention(queries, keys, values, 0.25, mask)
    fused = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.25, mask=mask)

    assert mx.allclose(composed, fused, rtol=1e-4, atol=1e-5)


def test_composed_attention_keeps_the_precision_of_its_queries() -> None:
    half = mx.ones((1, 2, 4, 8), mx.bfloat16)

    assert composed_attention(half, half, half, 1.0, "causal").dtype == mx.bfloat16
