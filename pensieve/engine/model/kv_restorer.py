# pyright: basic
"""Restores caches from disk blocks, one block at a time.

Used by disk_prefix_cache.py. Memory use is bounded by the restored caches and one block.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.disk.block_file import Block
from pensieve.engine.model.kv_layers import (
    is_trimmable,
    layer_from_arrays,
    layer_from_state,
    to_mlx,
)
from pensieve.engine.model.kv_layout import KVLayout, check_restored
from pensieve.engine.planning.memory_plan import MAX_GROWN_TOKENS, grown_tokens


class KVRestorer:
    """Fills caches like `empty` block by block.

    They have capacity for `tokens` from the start: growing would copy them. Raises
    `DamagedBlockError` for a block of another model.
    """

    def __init__(self, empty: Sequence[Any], layout: KVLayout, tokens: int) -> None:
        self._empty = empty
        self._layout = layout
        self._tokens = tokens
        self._buffers: dict[int, list[mx.array]] = {}
        # From the last block: the contents of untrimmable layers.
        self._outline: Any = None
        self._arrays: list[mx.array] = []

    def add(self, block: Block, start: int, end: int, *, is_tail: bool) -> None:
        """Add the tokens [start, end), the first ones of `block`, after those already added."""
        self._layout.check(block, is_tail=is_tail)
        arrays = [to_mlx(array) for array in block.arrays]
        for layer, cache in enumerate(self._empty):
            if not is_trimmable(cache):
                continue
            parts = [arrays[index] for index in block.outline[layer]]
            if layer not in self._buffers:
                self._buffers[layer] = [self._buffer_for(cache, part) for part in parts]
            for buffer, part in zip(self._buffers[layer], parts, strict=True):
                buffer[:, :, start:end] = part[:, :, : end - start]
        mx.eval(self._buffers)
        self._outline, self._arrays = block.outline, arrays

    def caches(self, tokens: int) -> list[Any]:
        """Return caches of the first `tokens` tokens; untrimmable layers are the last block's."""
        return [self._cache(layer, cache, tokens) for layer, cache in enumerate(self._empty)]

    def _cache(self, layer: int, empty: Any, tokens: int) -> Any:
        if is_trimmable(empty):
            return layer_from_arrays(empty, self._buffers[layer], tokens)
        restored = layer_from_state(empty, self._outline[layer], self._arrays)
        check_restored(restored, empty, tokens)
        return restored

    def _buffer_for(self, cache: Any, part: mx.array) -> mx.array:
        """Return an empty array [1, heads, capacity, …] for a `part` [1, heads, tokens, …]."""
        size = grown_tokens(self._tokens, getattr(cache, "max_tokens", MAX_GROWN_TOKENS))
        return mx.zeros((*part.shape[:2], size, *part.shape[3:]), part.dtype)
