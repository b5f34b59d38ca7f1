# pyright: basic
"""Drops the newest tokens from batch caches: those of refused drafts.

Called by `DecodeBatch`. Caches of keys and values drop any of the newest tokens. State-space layers
cannot: their states before the pass are put back, so that all tokens of the pass are dropped, and
those that stay are fed again. The arrays of a state are replaced by each pass, never changed, so
keeping them copies nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.models.cache import ArraysCache  # noqa: TID253

from pensieve.engine.model.kv.window import KEPT_TOKENS, WindowKVCache
from pensieve.engine.model.kv_cache import RaggedKV, SequenceKVCache


def can_rewind(caches: Iterable[Any]) -> bool:
    """Whether drafts are possible over these caches of one sequence."""
    return all(isinstance(cache, SequenceKVCache | ArraysCache) for cache in caches)


class RewindPoint:
    """The state of batch caches before a pass."""

    def __init__(self, caches: Sequence[Any]) -> None:
        self._caches = caches
        self._states = [(cache, cache.cache[:]) for cache in _state_spaces(caches)]

    @property
    def is_whole(self) -> bool:
        """Whether only all tokens of the pass can be dropped."""
        return bool(self._states)

    def rewind(self, tokens: Sequence[int]) -> None:
        """Drop this many of the newest tokens of each row."""
        for cache in self._caches:
            if isinstance(cache, RaggedKV):
                cache.rewind(tokens)
        for cache, arrays in self._states:
            cache.cache = arrays


def filled(cache: Any, tokens: int, capacity: int) -> Any:
    """Return the cache of a sequence of `tokens` zeros, for one of at least one token.

    States stay as they are: their size does not depend on the tokens.
    """
    if not isinstance(cache, SequenceKVCache):
        return cache
    if isinstance(cache, WindowKVCache):
        capacity = min(tokens, cache.max_size + KEPT_TOKENS)
    arrays = cache.arrays(0, 1)
    zeros = [mx.zeros((*one.shape[:2], capacity, one.shape[3]), one.dtype) for one in arrays]
    return type(cache).from_arrays(zeros, cache, tokens)


def has_states(caches: Iterable[Any]) -> bool:
    return next(_state_spaces(caches), None) is not None


def _state_spaces(caches: Iterable[Any]) -> Iterator[Any]:
    return (cache for cache in caches if isinstance(cache, ArraysCache))
