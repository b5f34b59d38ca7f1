# pyright: basic
"""The KV caches of all layers of one sequence: implements `prefix_cache.KVState`.

If every layer is trimmable, every prefix is usable. State-space layers are not, and sliding windows
only while what they need is still there; copies of their (small) state are kept at checkpoints, and
other usable prefixes end there.
"""

import copy
from collections.abc import Mapping
from typing import Any

from pensieve.engine.model.kv.window import WindowKVCache
from pensieve.engine.model.kv_layers import trim_to_window
from pensieve.engine.planning.memory_plan import MAX_CHECKPOINTS


class SequenceKVState:
    """Owns one sequence's caches while it is in no batch: one per layer, `tokens` tokens each."""

    def __init__(
        self,
        caches: list[Any],
        tokens: int,
        checkpoints: Mapping[int, dict[int, Any]] | None = None,
    ) -> None:
        self.caches = caches
        self.tokens = tokens
        self.checkpoints = dict(checkpoints or {})

    @property
    def nbytes(self) -> int:
        nbytes = sum(cache.nbytes for cache in self.caches)
        for layers in self.checkpoints.values():
            nbytes += sum(cache.nbytes for cache in layers.values())
        return nbytes

    def usable_tokens(self, tokens: int) -> int:
        """Return the length of the longest usable prefix of at most `tokens` tokens."""
        if tokens >= self.tokens:
            return self.tokens
        if all(_can_trim(cache, tokens) for cache in self.caches):
            return tokens
        return max((end for end in self.checkpoints if end <= tokens), default=0)

    def layer_at(self, layer: int, tokens: int) -> Any:
        """Return an untrimmable layer's cache at the end or at a checkpoint."""
        return self.caches[layer] if tokens == self.tokens else self.checkpoints[tokens][layer]

    def trim(self, tokens: int) -> None:
        """Trim to a usable prefix."""
        dropped = self.tokens - tokens
        if dropped == 0:
            return
        saved = self.checkpoints.get(tokens, {})
        for layer, cache in enumerate(self.caches):
            if layer in saved:
                self.caches[layer] = _copy_layer(saved[layer], tokens, tokens)
            else:
                cache.trim(dropped)
        self.tokens = tokens
        self.checkpoints = {
            end: layers for end, layers in self.checkpoints.items() if end <= tokens
        }

    def copy(self, tokens: int) -> "SequenceKVState":
        """Copy a usable prefix."""
        saved = self.checkpoints.get(tokens, {})
        caches = [
            _copy_layer(saved[layer], tokens, tokens)
            if layer in saved
            else _copy_layer(cache, self.tokens, tokens)
            for layer, cache in enumerate(self.caches)
        ]
        checkpoints = {
            end: dict(layers) for end, layers in self.checkpoints.items() if end <= tokens
        }
        return SequenceKVState(caches, tokens, checkpoints)


def add_checkpoint(
    checkpoints: dict[int, dict[int, Any]], tokens: int, layers: dict[int, Any], pinned_tokens: int
) -> None:
    """Add the newest checkpoint, then drop one if there are more than `MAX_CHECKPOINTS`.

    Drops the one that leaves the smallest gap. Three remain: the newest, the one at the end of the
    prefix that other conversations share (`pinned_tokens`), and one between.
    """
    checkpoints[tokens] = layers
    if len(checkpoints) <= MAX_CHECKPOINTS:
        return
    ends = [0, *sorted(checkpoints)]
    gaps = {
        end: after - before
        for before, end, after in zip(ends, ends[1:], ends[2:], strict=False)
        if end != pinned_tokens
    }
    del checkpoints[min(gaps, key=gaps.__getitem__)]


def checkpoint_of(caches: list[Any]) -> dict[int, Any]:
    """Return copies of the untrimmable layers, by layer; empty for most models.

    `caches` are just extracted, in layer order.
    """
    return {
        layer: _window_of(cache)
        for layer, cache in enumerate(caches)
        if not is_always_trimmable(cache)
    }


def _window_of(cache: Any) -> Any:
    """Copy an untrimmable layer, without what lies before its window."""
    if isinstance(cache, WindowKVCache):
        return cache.copy(cache.offset, kept_tokens=0)
    copied = copy.deepcopy(cache)
    trim_to_window(copied)
    return copied


def _can_trim(cache: Any, tokens: int) -> bool:
    if isinstance(cache, WindowKVCache):
        return cache.can_trim(tokens)
    return cache.is_trimmable()


def is_always_trimmable(cache: Any) -> bool:
    """A sliding window is trimmable until it is full, so its current answer does not count."""
    return cache.is_trimmable() and not hasattr(cache, "max_size")


def _copy_layer(cache: Any, cached_tokens: int, tokens: int) -> Any:
    if hasattr(cache, "precision"):
        return cache.copy(tokens)
    copied = copy.deepcopy(cache)
    if tokens < cached_tokens:
        copied.trim(cached_tokens - tokens)
    return copied
