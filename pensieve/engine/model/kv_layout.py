# pyright: basic
"""The types and shapes of the arrays that a model's KV caches consist of.

A block from disk is compared with it before it is used: its checksum proves that it is as it was
written, not that this model wrote it. Numbers of the right type and shape are believed; whoever can
write to the private folder can forge those. Runs on the engine's thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.disk.block_file import Block, DamagedBlockError, StoredArray
from pensieve.engine.model.cache_maker import CacheMaker, prefilled
from pensieve.engine.model.kv_layers import dtype_name, is_trimmable, layer_arrays, layer_state

_PROBE = [3, 1, 2]
# Caches hold more tokens than their sequence has: a window and a chunk, or room to grow.
_SPARE_TOKENS = 1 << 14
_HEADER_BYTES = 1 << 20
_TOKEN_AXIS = 2
# Of mlx-lm's caches: what is the same in all of one layer.
_CONSTANTS = ("max_size", "keep", "chunk_size", "group_size", "bits")


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """dtype: MLX's name for it. shape: of the probe's array. has_tokens: its third axis counts them."""

    dtype: str
    shape: tuple[int, ...]
    item_bytes: int
    has_tokens: bool

    def with_tokens(self, tokens: int) -> tuple[int, ...]:
        """Return its shape for so many tokens."""
        if not self.has_tokens:
            return self.shape
        return (*self.shape[:_TOKEN_AXIS], tokens, *self.shape[_TOKEN_AXIS + 1 :])

    def nbytes(self, tokens: int) -> int:
        """Return its bytes for so many tokens."""
        return self.item_bytes * prod(self.with_tokens(tokens))

    def matches(self, array: StoredArray, tokens: int | None = None) -> bool:
        """Whether `array` is like this one. tokens: that it must have, None for any number."""
        if array.dtype != self.dtype or len(array.shape) != len(self.shape):
            return False
        if tokens is None and self.has_tokens:
            tokens = array.shape[_TOKEN_AXIS]
        expected = self.with_tokens(tokens or 0)
        return (array.shape, len(array.content)) == (expected, self.nbytes(tokens or 0))


@dataclass(frozen=True, slots=True)
class LayerLayout:
    """outline: what `layer_state` returns for a layer that cannot be cut; None for one that can."""

    arrays: tuple[ArrayLayout, ...]
    outline: Any = None

    def matches(self, block: Block, outline: Any, first: int) -> bool:
        """Whether the block's arrays from `first` on make up this layer."""
        arrays = block.arrays[first : first + len(self.arrays)]
        if len(arrays) < len(self.arrays):
            return False
        if self.outline is None:
            tokens = len(block.tokens)
            is_alike = outline == list(range(first, first + len(arrays)))
        else:
            tokens = None
            is_alike = _outline_matches(self.outline, outline, first)
        pairs = zip(self.arrays, arrays, strict=True)
        return is_alike and all(layout.matches(array, tokens) for layout, array in pairs)


class KVLayout:
    """The layers of one model's caches."""

    def __init__(self, layers: Sequence[LayerLayout]) -> None:
        self._layers = tuple(layers)

    @classmethod
    def of(cls, make_caches: CacheMaker) -> "KVLayout":
        """Return the layout of the caches that a short prompt fills. Nothing is computed for it."""
        caches = prefilled(make_caches.model, make_caches(), _PROBE)
        return cls([_layer_layout(cache) for cache in caches])

    def max_file_bytes(self, tokens: int) -> int:
        """Return the most bytes that a file of a sequence of `tokens` tokens can have."""
        arrays = (array for layer in self._layers for array in layer.arrays)
        return _HEADER_BYTES + sum(array.nbytes(tokens + _SPARE_TOKENS) for array in arrays)

    def check(self, block: Block, *, is_tail: bool) -> None:
        """Raise `DamagedBlockError` unless its arrays are those of this model's caches."""
        if not isinstance(block.outline, list) or len(block.outline) != len(self._layers):
            raise DamagedBlockError("its layers are not the model's")
        first = 0
        for layer, outline in zip(self._layers, block.outline, strict=True):
            if layer.outline is not None and not is_tail:
                continue
            if not layer.matches(block, outline, first):
                raise DamagedBlockError("its arrays are not those of the model's caches")
            first += len(layer.arrays)
        if first != len(block.arrays):
            raise DamagedBlockError("it has more arrays than the model's caches")


def check_restored(cache: Any, empty: Any, tokens: int) -> None:
    """Raise `DamagedBlockError` unless `cache`, made from a block, continues after `tokens` tokens."""
    if parts := getattr(empty, "caches", None):
        for part, empty_part in zip(cache.caches, parts, strict=True):
            check_restored(part, empty_part, tokens)
        return
    for name in _CONSTANTS:
        if getattr(cache, name, None) != getattr(empty, name, None):
            raise DamagedBlockError(f"its {name} is not the model's")
    if getattr(cache, "offset", tokens) != tokens:
        raise DamagedBlockError("it ends at another token")
    if getattr(cache, "keys", None) is not None:
        _check_window(cache)


def _check_window(cache: Any) -> None:
    """Raise `DamagedBlockError` where fewer tokens are there than the window shows."""
    held = cache.keys.shape[_TOKEN_AXIS]
    seen = cache.offset - getattr(cache, "start_position", 0)
    if held < min(seen, getattr(cache, "max_size", seen)) or held < getattr(cache, "_idx", 0):
        raise DamagedBlockError("it holds fewer tokens than it says")


def _layer_layout(cache: Any) -> LayerLayout:
    if is_trimmable(cache):
        return LayerLayout(tuple(map(_array_layout, layer_arrays(cache, 0, len(_PROBE)))))
    arrays: list[mx.array] = []
    outline = layer_state(cache, arrays)
    # State spaces have arrays of one size, and no keys.
    has_tokens = hasattr(cache, "keys") or hasattr(cache, "caches")
    layouts = (_array_layout(array, has_tokens=has_tokens) for array in arrays)
    return LayerLayout(tuple(layouts), outline)


def _array_layout(array: mx.array, *, has_tokens: bool = True) -> ArrayLayout:
    shape = tuple(array.shape)
    has_tokens = has_tokens and len(shape) == 4
    return ArrayLayout(dtype_name(array.dtype), shape, array.itemsize, has_tokens)


def _outline_matches(expected: Any, found: Any, first: int) -> bool:
    """Whether both have one form; numbers other than arrays' places may differ.

    first: where the arrays of `found` begin.
    """
    match expected, found:
        case {"array": int(index)}, {"array": place}:
            return place == first + index
        case list(), list():
            return len(expected) == len(found) and all(
                _outline_matches(one, other, first)
                for one, other in zip(expected, found, strict=True)
            )
        case int(), int():
            return type(expected) is type(found) and found >= 0
        case _:
            return type(expected) is type(found) and expected == found
