# pyright: basic
"""Attention of several new tokens without MLX's fused kernel, where that is slow or missing.

On CUDA, `mx.fast.scaled_dot_product_attention` prepares a plan of cuDNN for each new pair of
numbers of queries and keys: 70 to 130 ms, when 32 layers of this composition take 4 ms (32 queries,
4000 keys, 32 heads; H200, MLX 0.32.4, 2026-12-01). A step with drafts has another pair each time,
and so has the rest of a prompt whose beginning is cached. On a CPU MLX composes as well, with more
passes over the scores: 14 ms instead of 7 for 4 queries and 4250 keys, 34 instead of 23 for 32.

Shapes: keys, values and queries [1, heads, tokens, head_dim].
"""

from functools import lru_cache
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.models.base import create_causal_mask  # noqa: TID253

from pensieve.engine.speculation.draft_source import TILE_ROWS

# Scores of a prompt's chunk that may be in memory on CUDA: about 18 bytes for each (planning's
# fused_attention.py), 0.6 GB. Longer chunks take longer than their plan, which is kept.
MAX_SCORES = 2**25


def attention(  # noqa: PLR0913 -- as in MLX
    queries: mx.array, keys: mx.array, values: mx.array, *, scale: float, mask: Any, sinks: Any
) -> mx.array:
    """Return the attention of the newest tokens; `mask` is None, "causal" or a boolean array."""
    if sinks is None and is_composed(queries, keys, mask):
        return composed_attention(queries, keys, values, scale, mask)
    return mx.fast.scaled_dot_product_attention(
        queries, keys, values, scale=scale, mask=mask, sinks=sinks
    )


def is_composed(queries: mx.array, keys: mx.array, mask: Any) -> bool:
    _, heads, tokens, _ = queries.shape
    if tokens == 1 or mx.metal.is_available():
        return False
    has_known_mask = mask is None or isinstance(mask, str) or mask.dtype == mx.bool_
    is_small = tokens <= TILE_ROWS or heads * tokens * keys.shape[2] <= MAX_SCORES
    return has_known_mask and (is_small or mx.default_device() == mx.Device(mx.cpu))


def composed_attention(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Any
) -> mx.array:
    batch, heads, tokens, _ = queries.shape
    kv_heads, seen = keys.shape[1], keys.shape[2]
    grouped = (queries * scale).reshape(batch, kv_heads, heads // kv_heads * tokens, -1)
    scores = (grouped @ keys.swapaxes(-1, -2)).reshape(batch, kv_heads, -1, tokens, seen)
    if isinstance(mask, str):
        mask = _causal_mask(tokens, seen)
    if mask is not None:
        scores = mx.where(mask, scores, mx.finfo(scores.dtype).min)
    weights = mx.softmax(scores, axis=-1, precise=True)
    attended = weights.reshape(batch, kv_heads, -1, seen) @ values
    return attended.reshape(batch, heads, tokens, -1)


# All layers of a pass have the same one.
@lru_cache(maxsize=1)
def _causal_mask(tokens: int, seen: int) -> mx.array:
    return create_causal_mask(tokens, seen - tokens)
