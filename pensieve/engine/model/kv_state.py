# pyright: basic
"""The KV caches of one sequence, all layers together: an implementation of `prefix_cache.KVState`.

Where every layer can drop its newest tokens, any prefix is usable. A sliding window that is full and a state-space
layer cannot; for those a copy of their (small) state is kept at checkpoints, and prefixes end there.
"""

import copy
from collections.abc import Mapping
from typing import Any

from pensieve.engine.model.kv_layers import trim_to_window
from pensieve.engine.planning.memory_plan import MAX_CHECKPOINTS


class SequenceKVState:
    """Owns one sequence's caches while no batch does. caches: one per layer, all holding `tokens` tokens."""

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
        """Bytes held, checkpoints included."""
        held = sum(cache.nbytes for cache in self.caches)
        for layers in self.checkpoints.values():
            held += sum(cache.nbytes for cache in layers.values())
        return held

    def usable_tokens(self, tokens: int) -> int:
        """The longest prefix of at most `tokens` that this can be cut back to."""
        if tokens >= self.tokens:
            return self.tokens
        if all(cache.is_trimmable() for cache in self.caches):
            return tokens
        return max((place for place in self.checkpoints if place <= tokens), default=0)

    def trim(self, tokens: int) -> None:
        """Cut back to a usable prefix."""
        dropped = self.tokens - tokens
        if dropped == 0:
            return
        saved = self.checkpoints.get(tokens, {})
        for layer, cache in enumerate(self.caches):
            if layer in saved:
                self.caches[layer] = copy.deepcopy(saved[layer])
            else:
                cache.trim(dropped)
        self.tokens = tokens
        self.checkpoints = {
            place: layers for place, layers in self.checkpoints.items() if place <= tokens
        }

    def copy(self, tokens: int) -> "SequenceKVState":
        """A usable prefix in memory of its own."""
        saved = self.checkpoints.get(tokens, {})
        caches = [
            copy.deepcopy(saved[layer]) if layer in saved else _copied(cache, self.tokens, tokens)
            for layer, cache in enumerate(self.caches)
        ]
        kept = {
            place: dict(layers) for place, layers in self.checkpoints.items() if place <= tokens
        }
        return SequenceKVState(caches, tokens, kept)


def add_checkpoint(
    checkpoints: dict[int, dict[int, Any]], tokens: int, layers: dict[int, Any], pinned_tokens: int
) -> None:
    """Take in the newest checkpoint. Of more than `MAX_CHECKPOINTS` the one goes that leaves the
    smallest gap: what stays is the newest, the one at the end of what other conversations share,
    and one between.
    """
    checkpoints[tokens] = layers
    if len(checkpoints) <= MAX_CHECKPOINTS:
        return
    places = [0, *sorted(checkpoints)]
    gaps = {
        place: after - before
        for before, place, after in zip(places, places[1:], places[2:], strict=False)
        if place != pinned_tokens
    }
    del checkpoints[min(gaps, key=gaps.__getitem__)]


def checkpoint_of(caches: list[Any]) -> dict[int, Any]:
    """Copies of the layers that could not be cut back later, by layer; empty for most models.
    caches: just extracted, in order.
    """
    copies = {
        layer: copy.deepcopy(cache)
        for layer, cache in enumerate(caches)
        if not _can_always_be_cut(cache)
    }
    for cache in copies.values():
        trim_to_window(cache)
    return copies


def _can_always_be_cut(cache: Any) -> bool:
    """A sliding window can be cut until it is full, so what it says now is no promise."""
    return cache.is_trimmable() and not hasattr(cache, "max_size")


def _copied(cache: Any, held_tokens: int, tokens: int) -> Any:
    if hasattr(cache, "precision"):
        return cache.copy(tokens)
    copied = copy.deepcopy(cache)
    if tokens < held_tokens:
        copied.trim(held_tokens - tokens)
    return copied
