# pyright: basic
"""Sequences of any lengths that decode together: mlx-lm's batch cache protocol over a list of `SequenceKV`.

mlx-lm's own batch cache pads every sequence to the longest and cannot be quantized. Here joining, leaving and moving
a sequence copies nothing. Attention runs sequence by sequence; the rest of a layer runs for the whole batch.

It reaches the models through one replaced function of mlx-lm, `models.base.quantized_scaled_dot_product_attention`,
to which mlx-lm routes every cache that has `bits`.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.models.cache import _BaseCache  # noqa: TID253

from pensieve.engine.kv import SequenceKV


class RaggedKV(_BaseCache):
    """One layer's caches of a batch of sequences of any lengths. Implements mlx-lm's batch cache protocol."""

    # mlx-lm looks for these two to choose the attention function that `install` replaces.
    bits = 8
    group_size = 32

    def __init__(self, sequences: list[SequenceKV]) -> None:
        self.sequences = sequences
        self._offsets: mx.array | None = None
        self._unpadded: list[int] | None = None
        self._new_tokens: list[int] = []

    @property
    def offset(self) -> Any:
        """Tokens before the next one: a number for one sequence, an array [batch] for more. For rotary positions."""
        if len(self.sequences) == 1:
            return self.sequences[0].offset
        if self._offsets is None:
            self._offsets = mx.array([sequence.offset for sequence in self.sequences])
        return self._offsets

    def prepare(self, lengths: Sequence[int] | None = None, **_: Any) -> None:
        """The coming chunk is padded on the right to the longest; each row has so many real tokens."""
        self._unpadded = list(lengths) if lengths is not None else None

    def finalize(self) -> None:
        """The padded chunk is over."""
        self._unpadded = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        """Store a chunk [batch, kv_heads, tokens, head_dim]; attention gets this cache in place of arrays."""
        tokens = keys.shape[2]
        left = self._unpadded or [tokens] * len(self.sequences)
        self._new_tokens = [max(0, min(tokens, unpadded)) for unpadded in left]
        for row, (sequence, new) in enumerate(zip(self.sequences, self._new_tokens, strict=True)):
            if new:
                sequence.append(keys[row : row + 1, :, :new], values[row : row + 1, :, :new])
        if self._unpadded is not None:
            self._unpadded = [unpadded - tokens for unpadded in self._unpadded]
        self._offsets = None
        return self, self

    def attend(self, queries: mx.array, scale: float) -> mx.array:
        """Each row's queries over its own sequence; padding gets zeros."""
        if len(self.sequences) == 1 and self._new_tokens[0] == queries.shape[2]:
            return self.sequences[0].attend(queries, scale)
        rows = [
            _attend_padded(sequence, queries[row : row + 1], new, scale)
            for row, (sequence, new) in enumerate(
                zip(self.sequences, self._new_tokens, strict=True)
            )
        ]
        return mx.concatenate(rows, axis=0)

    def make_mask(self, *_: Any, **__: Any) -> None:
        """No mask: `attend` is causal by itself."""

    def filter(self, keep: Sequence[int]) -> None:
        """Keep these rows."""
        self.sequences = [self.sequences[int(row)] for row in keep]
        self._offsets = None

    def extend(self, other: "RaggedKV") -> None:
        """Take another batch's rows in."""
        self.sequences = self.sequences + other.sequences
        self._offsets = None

    def extract(self, row: int) -> SequenceKV:
        """One row's cache: itself, not a copy."""
        return self.sequences[row]

    def __deepcopy__(self, memo: Any) -> "RaggedKV":
        """mlx-lm deep-copies a batch to split it and filters both halves: the sequences are shared, not copied."""
        return RaggedKV(list(self.sequences))

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


def _attend_padded(sequence: SequenceKV, queries: mx.array, new: int, scale: float) -> mx.array:
    if new == 0:
        return mx.zeros_like(queries)
    attended = sequence.attend(queries[:, :, :new], scale)
    padding = queries.shape[2] - new
    return mx.pad(attended, [(0, 0), (0, 0), (0, padding), (0, 0)]) if padding else attended


_base: Any = importlib.import_module("mlx_lm.models.base")
_stock_attention = _base.quantized_scaled_dot_product_attention


def _attention(queries: Any, keys: Any, values: Any, scale: float, mask: Any, **sizes: Any) -> Any:
    if isinstance(keys, RaggedKV):
        return keys.attend(queries, scale)
    return _stock_attention(queries, keys, values, scale=scale, mask=mask, **sizes)


_base.quantized_scaled_dot_product_attention = _attention
