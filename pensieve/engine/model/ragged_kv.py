# pyright: basic
"""Sequences of any lengths that decode together: mlx-lm's batch cache protocol over a list of `SequenceKV`.

mlx-lm's own batch cache pads every sequence to the longest and cannot be quantized. Here joining, leaving and moving
a sequence copies nothing. Attention runs sequence by sequence; the rest of a layer runs for the whole batch. (Short
rows side by side in one padded array were tried and were no faster on an H100: benchmarks/RESULTS.md.)

It reaches the models through one replaced function of mlx-lm, `models.base.quantized_scaled_dot_product_attention`,
to which mlx-lm routes every cache that has `bits`.
"""

import importlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.models.cache import _BaseCache  # noqa: TID253

from pensieve.engine.model.kv_cache import SequenceKVCache


class RaggedKV(_BaseCache):
    """One layer's caches of a batch of sequences of any lengths. Implements mlx-lm's batch cache protocol."""

    group_size = 32

    def __init__(self, sequences: list[SequenceKVCache]) -> None:
        self._hold(sequences)

    def _hold(self, sequences: list[SequenceKVCache]) -> None:
        """mlx-lm takes the attention function that this module replaces for caches that have `bits`.

        One sequence in full precision has it not: the stock function over plain arrays is the shortest way then.
        """
        self.sequences = sequences
        self._plain: SequenceKVCache | None = None
        self.__dict__.pop("bits", None)
        is_full = sequences[0].precision.bits is None
        self._is_unfused = is_full and mx.default_device() == mx.Device(mx.cpu)
        if len(sequences) == 1 and is_full:
            self._plain = sequences[0]
        else:
            self.bits = 8

    @property
    def offset(self) -> Any:
        """Tokens before the next one: a number for one sequence, an array [batch] for more. For rotary positions."""
        if len(self.sequences) == 1:
            return self.sequences[0].offset
        return _positions(tuple([sequence.offset for sequence in self.sequences]))

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        """Store a chunk [batch, kv_heads, tokens, head_dim]; attention gets arrays, or this cache in their place."""
        if self._plain is not None:
            return self._plain.appended(keys, values)
        rows = zip(self.sequences, _rows(keys), _rows(values), strict=True)
        for sequence, row_keys, row_values in rows:
            sequence.append(row_keys, row_values)
        return self, self

    def attend(self, queries: mx.array, scale: float) -> mx.array:
        """Each row's queries over its own sequence."""
        if self._is_unfused and queries.shape[2] == 1:
            return self._attend_unfused(queries, scale)
        pairs = zip(self.sequences, _rows(queries), strict=True)
        rows = [sequence.attend(row, scale) for sequence, row in pairs]
        return rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=0)

    def _attend_unfused(self, queries: mx.array, scale: float) -> mx.array:
        """What a processor computes for one token a row, where MLX has no fused kernel: a third of the operations that MLX makes
        of it, which is what short rows cost.
        """
        batch, heads, _, head_dim = queries.shape
        kv_heads = self.sequences[0].kv_heads
        grouped = (queries * scale).reshape(batch, kv_heads, heads // kv_heads, head_dim)
        pairs = zip(self.sequences, _rows(grouped), strict=True)
        rows = [sequence.attend_unfused(row) for sequence, row in pairs]
        return mx.concatenate(rows, axis=0).reshape(queries.shape)

    def make_mask(self, tokens: int, *_: Any, **__: Any) -> str | None:
        """`attend` is causal by itself; the stock attention is told."""
        return "causal" if tokens > 1 and self._plain is not None else None

    def filter(self, keep: Sequence[int]) -> None:
        """Keep these rows."""
        self._hold([self.sequences[int(row)] for row in keep])

    def extend(self, other: "RaggedKV") -> None:
        """Take another batch's rows in."""
        self._hold(self.sequences + other.sequences)

    def extract(self, row: int) -> SequenceKVCache:
        """One row's cache: itself, not a copy."""
        return self.sequences[row]

    @property
    def state(self) -> Any:
        """All rows' arrays."""
        return [sequence.state for sequence in self.sequences]

    def size(self) -> int:
        """Tokens of the longest row."""
        return max((sequence.offset for sequence in self.sequences), default=0)

    def empty(self) -> bool:
        """Nothing stored in any row."""
        return all(sequence.empty() for sequence in self.sequences)

    @property
    def nbytes(self) -> int:
        """Bytes held by all rows."""
        return sum(sequence.nbytes for sequence in self.sequences)


def _rows(batched: mx.array) -> list[mx.array]:
    rows: Any = mx.split(batched, batched.shape[0])
    return rows


# All layers ask for the same in a step, and get the same array.
@lru_cache(maxsize=8)
def _positions(offsets: tuple[int, ...]) -> mx.array:
    return mx.array(offsets)


_base: Any = importlib.import_module("mlx_lm.models.base")
_stock_attention = _base.quantized_scaled_dot_product_attention


def _attention(queries: Any, keys: Any, values: Any, scale: float, mask: Any, **sizes: Any) -> Any:
    if isinstance(keys, RaggedKV):
        return keys.attend(queries, scale)
    return _stock_attention(queries, keys, values, scale=scale, mask=mask, **sizes)


_base.quantized_scaled_dot_product_attention = _attention
