# pyright: basic
"""The types and shapes of the arrays that make up a model's KV caches.

The disk cache checks each block against it before use: a block's checksum proves that the file is
intact, not that this model wrote it. Values of the right type and shape are trusted; a process that
can write to the private folder can forge those. Runs on the engine's thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.disk.block_file import Block, DamagedBlockError, StoredArray
from pensieve.engine.model.cache_maker import CacheMaker, prefilled
from pensieve.engine.model.kv.window import WindowKVCache
from pensieve.engine.model.kv_layers import dtype_name, is_trimmable, layer_arrays, layer_state

_PROBE = [3, 1, 2]
# Caches hold more tokens than their sequence: a window and a chunk, or spare capacity.
_SPARE_TOKENS = 1 << 14
_HEADER_BYTES = 1 << 20
_TOKEN_AXIS = 2
# Attributes of mlx-lm's caches that are the same in all caches of one layer.
_CONSTANTS = ("max_size", "keep", "chunk_size", "group_size", "bits")


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """The type and shape of one array."""

    dtype: str  # MLX's name
    shape: tuple[int, ...]  # of the probe's array
    item_bytes: int
    has_tokens: bool  # its third axis counts tokens

    def with_tokens(self, tokens: int) -> tuple[int, ...]:
        if not self.has_tokens:
            return self.shape
        return (*self.shape[:_TOKEN_AXIS], tokens, *self.shape[_TOKEN_AXIS + 1 :])

    def nbytes(self, tokens: int) -> int:
        return self.item_bytes * prod(self.with_tokens(tokens))

    def matches(self, array: StoredArray, tokens: int | None = None) -> bool:
        """Whether `array` has this type and shape; `tokens` None allows any number of tokens."""
        if array.dtype != self.dtype or len(array.shape) != len(self.shape):
            return False
        if tokens is None and self.has_tokens:
            tokens = array.shape[_TOKEN_AXIS]
        expected = self.with_tokens(tokens or 0)
        return (array.shape, len(array.content)) == (expected, self.nbytes(tokens or 0))


@dataclass(frozen=True, slots=True)
class LayerLayout:
    """The arrays of one layer."""

    arrays: tuple[ArrayLayout, ...]
    outline: Any = None  # the result of `layer_state`; None for a trimmable layer

    def matches(self, block: Block, outline: Any, first: int) -> bool:
        """Whether the block's arrays from index `first` on make up this layer."""
        arrays = block.arrays[first : first + len(self.arrays)]
        if len(arrays) < len(self.arrays):
            return False
        if self.outline is None:
            tokens = len(block.tokens)
            has_same_outline = outline == list(range(first, first + len(arrays)))
        else:
            tokens = None
            has_same_outline = _outline_matches(self.outline, outline, first)
        pairs = zip(self.arrays, arrays, strict=True)
        return has_same_outline and all(layout.matches(array, tokens) for layout, array in pairs)


class KVLayout:
    def __init__(self, layers: Sequence[LayerLayout]) -> None:
        self._layers = tuple(layers)

    @classmethod
    def of(cls, make_caches: CacheMaker) -> "KVLayout":
        """Return the layout of the caches that a short prompt fills, without evaluating them."""
        caches = prefilled(make_caches.model, make_caches(), _PROBE)
        return cls([_layer_layout(cache) for cache in caches])

    def max_file_bytes(self, tokens: int) -> int:
        """Return an upper bound for a file of a sequence of `tokens` tokens."""
        arrays = (array for layer in self._layers for array in layer.arrays)
        return _HEADER_BYTES + sum(array.nbytes(tokens + _SPARE_TOKENS) for array in arrays)

    def check(self, block: Block, *, is_tail: bool) -> None:
        """Raise `DamagedBlockError` unless its arrays match this model's caches."""
        if not isinstance(block.outline, list) or len(block.outline) != len(self._layers):
            raise DamagedBlockError("its layers do not match the model")
        first = 0
        for layer, outline in zip(self._layers, block.outline, strict=True):
            if layer.outline is not None and not is_tail:
                continue
            if not layer.matches(block, outline, first):
                raise DamagedBlockError("its arrays do not match the model's caches")
            first += len(layer.arrays)
        if first != len(block.arrays):
            raise DamagedBlockError("it has more arrays than the model's caches")


def check_restored(cache: Any, empty: Any, tokens: int) -> None:
    """Raise `DamagedBlockError` unless `cache`, read from a block, ends at `tokens` tokens."""
    if parts := getattr(empty, "caches", None):
        for part, empty_part in zip(cache.caches, parts, strict=True):
            check_restored(part, empty_part, tokens)
        return
    for name in _CONSTANTS:
        if getattr(cache, name, None) != getattr(empty, name, None):
            raise DamagedBlockError(f"its {name} does not match the model")
    if getattr(cache, "offset", tokens) != tokens:
        raise DamagedBlockError("it ends at a different token")
    if getattr(cache, "keys", None) is not None:
        _check_window(cache)
    if isinstance(cache, WindowKVCache) and not cache.is_whole:
        raise DamagedBlockError("it holds fewer tokens than its window")


def _check_window(cache: Any) -> None:
    """Raise `DamagedBlockError` if the cache holds fewer tokens than its window covers."""
    stored = cache.keys.shape[_TOKEN_AXIS]
    seen = cache.offset - getattr(cache, "start_position", 0)
    if stored < min(seen, getattr(cache, "max_size", seen)) or stored < getattr(cache, "_idx", 0):
        raise DamagedBlockError("it holds fewer tokens than it states")


def _layer_layout(cache: Any) -> LayerLayout:
    if is_trimmable(cache):
        return LayerLayout(tuple(map(_array_layout, layer_arrays(cache, 0, len(_PROBE)))))
    arrays: list[mx.array] = []
    outline = layer_state(cache, arrays)
    # State spaces have arrays of fixed size, and no keys.
    has_tokens = any(hasattr(cache, name) for name in ("keys", "caches", "arrays"))
    layouts = (_array_layout(array, has_tokens=has_tokens) for array in arrays)
    return LayerLayout(tuple(layouts), outline)


def _array_layout(array: mx.array, *, has_tokens: bool = True) -> ArrayLayout:
    shape = tuple(array.shape)
    has_tokens = has_tokens and len(shape) == 4
    return ArrayLayout(dtype_name(array.dtype), shape, array.itemsize, has_tokens)


def _outline_matches(expected: Any, found: Any, first: int) -> bool:
    """Whether both have the same structure; ints other than array indexes may differ.

    `first` is the index of the first array of `found`.
    """
    match expected, found:
        case {"array": int(index)}, {"array": found_index}:
            return found_index == first + index
        case list(), list():
            return len(expected) == len(found) and all(
                _outline_matches(one, other, first)
                for one, other in zip(expected, found, strict=True)
            )
        case int(), int():
            return type(expected) is type(found) and found >= 0
        case _:
            return type(expected) is type(found) and expected == found
