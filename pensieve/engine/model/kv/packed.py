# pyright: basic
"""KV caches of one layer in a pass in which sequences have several tokens each: with drafts."""

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.models.cache import _BaseCache  # noqa: TID253

from pensieve.engine.model.kv_cache import SequenceKVCache, positions_of


class PackedKV(_BaseCache):
    """One layer's caches in a pass in which sequences have several tokens each.

    Each row of the pass is one token, and those of a sequence follow each other: so no row is
    padded, and a matrix product has as many rows as there are tokens.
    """

    group_size = 32
    bits = 8  # as in `RaggedKV`

    def __init__(self, sequences: Sequence[SequenceKVCache], widths: Sequence[int]) -> None:
        self._sequences = sequences
        self._ends = list(accumulate(widths))[:-1]
        pairs = zip(sequences, widths, strict=True)
        firsts = ((one.offset + one.shift, width) for one, width in pairs)
        positions = (range(first, first + width) for first, width in firsts)
        self.offset: Any = positions_of(tuple(chain.from_iterable(positions)))

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        triples = zip(self._sequences, self._split(keys), self._split(values), strict=True)
        for sequence, own_keys, own_values in triples:
            sequence.append(own_keys, own_values)
        return self, self

    def attend(self, queries: mx.array, scale: float, sinks: mx.array | None = None) -> mx.array:
        """Attention of each token over its own sequence, up to itself."""
        pairs = zip(self._sequences, self._split(queries), strict=True)
        rows = [sequence.attend(own, scale, sinks).swapaxes(0, 2) for sequence, own in pairs]
        return mx.concatenate(rows, axis=0)

    def make_mask(self, tokens: int, *_: Any, **__: Any) -> None:
        """`attend` masks itself."""

    def _split(self, rows: mx.array) -> list[mx.array]:
        """Split [all tokens, heads, 1, head_dim] into [1, heads, tokens, head_dim] of each."""
        return [part.swapaxes(0, 2) for part in mx.split(rows, self._ends)]
