# pyright: basic
"""Selects the KV cache of each model layer: ours for attention, mlx-lm's otherwise.

Used when a model is loaded, and by the batch for each new sequence. State-space layers and a
model's own kinds keep mlx-lm's caches. Whether a model's attention works with ours is
tried with a short prompt, not guessed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache  # noqa: TID253

from pensieve.engine.model.kv.window import WindowKVCache
from pensieve.engine.model.kv_cache import SequenceKVCache
from pensieve.engine.planning.kv_precision import FULL, KVPrecision
from pensieve.engine.planning.memory_plan import MAX_GROWN_TOKENS

_PROBE = [[3, 1, 2], [2, 1, 3]]


@dataclass(frozen=True, slots=True)
class CacheMaker:
    """Makes the empty caches of one sequence."""

    model: Any
    is_ragged: bool  # the result of `supports_ragged_kv`
    precision: KVPrecision = FULL
    max_tokens: int = MAX_GROWN_TOKENS  # of one sequence
    ranks: int = 1  # that share the model: `model` is one rank's part

    def __call__(self) -> list[Any]:
        """Return one empty cache per layer."""
        stock = make_prompt_cache(self.model)
        return _with_ragged_kv(stock, self.precision, self.max_tokens) if self.is_ragged else stock


def _with_ragged_kv(stock: list[Any], precision: KVPrecision, max_tokens: int) -> list[Any]:
    return [_ragged_kv(cache, precision, max_tokens) or cache for cache in stock]


def _ragged_kv(
    stock: Any, precision: KVPrecision = FULL, max_tokens: int = MAX_GROWN_TOKENS
) -> SequenceKVCache | None:
    """Return our cache of the same kind; None if there is none."""
    if type(stock) is KVCache:
        return SequenceKVCache(precision, max_tokens)
    if type(stock) is RotatingKVCache and not stock.keep:
        return WindowKVCache(stock.max_size)
    return None


def supports_ragged_kv(model: Any) -> bool:
    """Whether two short prompts give the same logits over our caches as over mlx-lm's."""
    stock = make_prompt_cache(model)
    if not any(map(_ragged_kv, stock)):
        return False
    try:
        ours = _probe_together(model, CacheMaker(model, is_ragged=True))
    except (AttributeError, TypeError, ValueError):
        return False
    model(mx.array(_PROBE), cache=stock)
    expected = model(mx.array([[1], [1]]), cache=stock)
    tolerance = 0.02 * mx.max(mx.abs(expected))
    return bool(mx.all(mx.abs(ours - expected) <= tolerance).item())


def supports_batching(make_caches: CacheMaker) -> bool:
    """Whether sequences of different lengths decode as one batch.

    mlx-lm's Gemma 2 does not: its scores accept no batch mask.
    """
    if all(isinstance(cache, SequenceKVCache) for cache in make_caches()):
        return True  # tried by `supports_ragged_kv`
    try:
        mx.eval(_probe_together(make_caches.model, make_caches, [_PROBE[0], _PROBE[1][:2]]))
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _probe_together(
    model: Any, make_caches: Callable[[], list[Any]], prompts: list[list[int]] = _PROBE
) -> mx.array:
    sequences = [prefilled(model, make_caches(), prompt) for prompt in prompts]
    return model(mx.array([[1], [1]]), cache=_merge(sequences))


def prefilled(model: Any, caches: list[Any], prompt: list[int]) -> list[Any]:
    """Process `prompt` with the empty `caches` of one sequence; return the filled ones."""
    batch = _merge([caches])
    model(mx.array([prompt]), cache=batch)
    return [cache.extract(0) for cache in batch]


def _merge(sequences: list[list[Any]]) -> list[Any]:
    return [layers[0].merge(list(layers)) for layers in zip(*sequences, strict=True)]
