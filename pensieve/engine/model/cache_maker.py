# pyright: basic
"""Which caches a model's layers get: ours where they give the model's own results, mlx-lm's everywhere else.

A layer that attends to everything gets a `SequenceKVCache`. Sliding windows, state-space layers and whatever else a model
makes for itself stay as mlx-lm made them. Whether a model's attention goes the way ours needs is tried, not guessed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.models.cache import KVCache, make_prompt_cache  # noqa: TID253

from pensieve.engine.model.kv_cache import SequenceKVCache
from pensieve.engine.planning.kv_precision import FULL, KVPrecision
from pensieve.engine.planning.memory_plan import MAX_GROWN_TOKENS

_PROBE = [[3, 1, 2], [2, 1, 3]]


@dataclass(frozen=True, slots=True)
class CacheMaker:
    """Makes the caches of one sequence. is_ragged: what `supports_ragged_kv` said of the model.
    most_tokens: of a sequence, at most.
    """

    model: Any
    is_ragged: bool
    precision: KVPrecision = FULL
    most_tokens: int = MAX_GROWN_TOKENS

    def __call__(self) -> list[Any]:
        """Empty caches for one sequence, a list with one for each layer."""
        stock = make_prompt_cache(self.model)
        return _ours(stock, self.precision, self.most_tokens) if self.is_ragged else stock


def _ours(stock: list[Any], precision: KVPrecision, most_tokens: int) -> list[Any]:
    return [
        SequenceKVCache(precision, most_tokens) if type(cache) is KVCache else cache
        for cache in stock
    ]


def supports_ragged_kv(model: Any) -> bool:
    """Whether two short prompts decode over our caches to what they give over mlx-lm's."""
    stock = make_prompt_cache(model)
    if not any(type(cache) is KVCache for cache in stock):
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
    """Whether sequences of different lengths decode as one batch: mlx-lm's Gemma 2 does not, whose scores take no batch's mask."""
    if all(type(cache) is SequenceKVCache for cache in make_caches()):
        return True  # tried when they were chosen
    try:
        mx.eval(_probe_together(make_caches.model, make_caches, [_PROBE[0], _PROBE[1][:2]]))
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _probe_together(
    model: Any, make_caches: Callable[[], list[Any]], prompts: list[list[int]] = _PROBE
) -> mx.array:
    sequences = [prefilled(model, make_caches(), prompt) for prompt in prompts]
    return model(mx.array([[1], [1]]), cache=_merged(sequences))


def prefilled(model: Any, caches: list[Any], prompt: list[int]) -> list[Any]:
    """Return the caches of one sequence after `prompt`, like the empty ones in `caches`."""
    batch = _merged([caches])
    model(mx.array([prompt]), cache=batch)
    return [cache.extract(0) for cache in batch]


def _merged(sequences: list[list[Any]]) -> list[Any]:
    return [layers[0].merge(list(layers)) for layers in zip(*sequences, strict=True)]
