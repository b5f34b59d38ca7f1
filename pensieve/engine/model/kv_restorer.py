# pyright: basic
"""Blocks from disk back to caches, one at a time. There is never more in memory than the caches to be and one block."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.disk.block_file import Block
from pensieve.engine.model.kv_layers import (
    is_trimmable,
    layer_from_arrays,
    layer_from_state,
    loaded,
)
from pensieve.engine.model.kv_layout import KVLayout, check_restored
from pensieve.engine.planning.memory_plan import MAX_GROWN_TOKENS, grown_tokens


class KVRestorer:
    """Caches like `empty` that are filled block by block, with room for `tokens`: to grow would copy all of them at once.

    Raises `DamagedBlockError` where a block is not of this model.
    """

    def __init__(self, empty: Sequence[Any], layout: KVLayout, tokens: int) -> None:
        self._empty = empty
        self._layout = layout
        self._tokens = tokens
        self._rooms: dict[int, list[mx.array]] = {}
        # Of the last block: what layers that cannot be cut are made of.
        self._outline: Any = None
        self._arrays: list[mx.array] = []

    def add(self, block: Block, start: int, end: int, *, is_tail: bool) -> None:
        """The tokens [start, end), the first ones of `block`, which follow what is there."""
        self._layout.check(block, is_tail=is_tail)
        arrays = [loaded(one) for one in block.arrays]
        for layer, cache in enumerate(self._empty):
            if not is_trimmable(cache):
                continue
            parts = [arrays[place] for place in block.outline[layer]]
            if layer not in self._rooms:
                self._rooms[layer] = [self._room_for(cache, part) for part in parts]
            for room, part in zip(self._rooms[layer], parts, strict=True):
                room[:, :, start:end] = part[:, :, : end - start]
        mx.eval(self._rooms)
        self._outline, self._arrays = block.outline, arrays

    def caches(self, tokens: int) -> list[Any]:
        """With the first `tokens` in them; layers that cannot be cut as the last block has them."""
        return [self._cache(layer, cache, tokens) for layer, cache in enumerate(self._empty)]

    def _cache(self, layer: int, empty: Any, tokens: int) -> Any:
        if is_trimmable(empty):
            return layer_from_arrays(empty, self._rooms[layer], tokens)
        restored = layer_from_state(empty, self._outline[layer], self._arrays)
        check_restored(restored, empty, tokens)
        return restored

    def _room_for(self, cache: Any, part: mx.array) -> mx.array:
        """part: [1, heads, tokens, …]."""
        size = grown_tokens(self._tokens, getattr(cache, "most_tokens", MAX_GROWN_TOKENS))
        return mx.zeros((*part.shape[:2], size, *part.shape[3:]), part.dtype)
