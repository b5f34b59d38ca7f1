# pyright: basic
"""KV caches of one layer: `SequenceKVCache` of one sequence, `RaggedKV` of a batch of them.

mlx-lm's own batch cache pads every sequence to the longest and cannot be quantized. Here adding,
removing and moving a sequence copies nothing. Attention runs sequence by sequence; the rest of a
layer runs for the whole batch. (Short rows next to each other in one padded array were tried and
were no faster on an H100: benchmarks/RESULTS.md.)

`RaggedKV` reaches the models through one replaced function of mlx-lm,
`models.base.quantized_scaled_dot_product_attention`, to which mlx-lm routes every cache that has
`bits`.

Shapes: keys, values and queries [1, heads, tokens, head_dim].
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.models import base  # noqa: TID253
from mlx_lm.models.cache import _BaseCache  # noqa: TID253

from pensieve.engine.planning.kv_precision import FULL, KVPrecision
from pensieve.engine.planning.memory_plan import MAX_GROWN_TOKENS, grown_tokens

# Up to so many new tokens a quantized product reads fewer bytes than dequantizing a layer; beyond, the fused kernel wins.
_DECODE_TOKENS = 8


# Bound before `_attention` takes its place in mlx-lm. It takes mask="causal", whatever its annotation says.
_quantized_attention: Any = base.quantized_scaled_dot_product_attention


class SequenceKVCache(_BaseCache):
    """One sequence's keys and values in one layer; owned by whoever holds the sequence.

    Its arrays have room for `grown_tokens` of what it holds, which is what the budget counts.
    most_tokens: it holds at most.
    """

    def __init__(self, precision: KVPrecision = FULL, most_tokens: int = MAX_GROWN_TOKENS) -> None:
        self.precision = precision
        self.most_tokens = most_tokens
        self.offset = 0
        self._keys: tuple[mx.array, ...] = ()
        self._values: tuple[mx.array, ...] = ()
        self._dtype: mx.Dtype = mx.float32

    def append(self, keys: mx.array, values: mx.array) -> None:
        """Store the next tokens' keys and values."""
        self._dtype = keys.dtype
        start, end = self.offset, self.offset + keys.shape[2]
        new_keys, new_values = self._stored(keys), self._stored(values)
        if not self._keys or self._keys[0].shape[2] < end:
            size = grown_tokens(end, self.most_tokens)
            self._keys = _grown(self._keys, new_keys, start, size)
            self._values = _grown(self._values, new_values, start, size)
        for held, new in zip((*self._keys, *self._values), (*new_keys, *new_values), strict=True):
            held[..., start:end, :] = new
        self.offset = end

    def appended(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Store the next tokens, and all that is stored; in full precision only.

        The way of a lone sequence, a few dozen times a token: what Python does here counts on a fast GPU.
        """
        start, end = self.offset, self.offset + keys.shape[2]
        if not self._keys or self._keys[0].shape[2] < end:
            self.append(keys, values)
            return self._keys[0][..., :end, :], self._values[0][..., :end, :]
        held_keys, held_values = self._keys[0], self._values[0]
        held_keys[..., start:end, :] = keys
        held_values[..., start:end, :] = values
        self.offset = end
        return held_keys[..., :end, :], held_values[..., :end, :]

    def attend(self, queries: mx.array, scale: float) -> mx.array:
        """Causal attention of the newest `queries.shape[2]` tokens over everything stored."""
        if self.precision.is_rotated:
            rotation = _rotation(queries.shape[-1], queries.dtype)
            return self._attend(queries @ rotation, scale) @ rotation.T
        return self._attend(queries, scale)

    def attend_unfused(self, queries: mx.array) -> mx.array:
        """Attention of the newest token in full precision. queries: scaled, in the groups that share keys and values
        [1, kv_heads, group, head_dim]; so is the result.
        """
        keys, values = self._view(self._keys)[0], self._view(self._values)[0]
        return mx.softmax(queries @ keys.swapaxes(-1, -2), axis=-1, precise=True) @ values

    def _attend(self, queries: mx.array, scale: float) -> mx.array:
        tokens = queries.shape[2]
        mask = "causal" if tokens > 1 else None
        keys, values = self._view(self._keys), self._view(self._values)
        precision = self.precision
        if precision.bits is None:
            return mx.fast.scaled_dot_product_attention(
                queries, keys[0], values[0], scale=scale, mask=mask
            )
        if precision.can_multiply and tokens <= _DECODE_TOKENS:
            return _quantized_attention(
                queries, keys, values, scale, mask, precision.group_size, precision.bits
            )
        return mx.fast.scaled_dot_product_attention(
            queries, self._restored(keys), self._restored(values), scale=scale, mask=mask
        )

    def _stored(self, x: mx.array) -> tuple[mx.array, ...]:
        if self.precision.bits is None:
            return (x,)
        if self.precision.is_rotated:
            x = x @ _rotation(x.shape[-1], x.dtype)
        return tuple(mx.quantize(x, self.precision.group_size, self.precision.bits))

    def _restored(self, stored: tuple[mx.array, ...]) -> mx.array:
        weights, scales, biases = stored
        group_size, bits = self.precision.group_size, self.precision.bits
        return mx.dequantize(weights, scales, biases, group_size, bits).astype(self._dtype)

    def _view(self, arrays: tuple[mx.array, ...]) -> tuple[mx.array, ...]:
        return tuple(array[..., : self.offset, :] for array in arrays)

    def arrays(self, start: int, end: int) -> list[mx.array]:
        """The stored tokens [start, end): keys' arrays, then values'. For the disk."""
        return [array[..., start:end, :] for array in (*self._keys, *self._values)]

    @classmethod
    def from_arrays(
        cls, arrays: Sequence[mx.array], empty: "SequenceKVCache", tokens: int
    ) -> "SequenceKVCache":
        """The opposite of `arrays`, for a cache like `empty`: the first `tokens` of some with room
        for more.

        Scales and biases are in the precision that keys were computed in.
        """
        restored = cls(empty.precision, empty.most_tokens)
        half = len(arrays) // 2
        restored._keys, restored._values = tuple(arrays[:half]), tuple(arrays[half:])
        restored._dtype = arrays[half - 1].dtype
        restored.offset = tokens
        return restored

    def copy(self, tokens: int) -> "SequenceKVCache":
        """The first `tokens` in arrays of their own."""
        return self.from_arrays(
            [mx.contiguous(array) for array in self.arrays(0, tokens)], self, tokens
        )

    @property
    def kv_heads(self) -> int:
        """Heads of keys and of values; some are shared by several of queries."""
        return self._keys[0].shape[1]

    @property
    def state(self) -> Any:
        """The arrays, as mlx-lm evaluates them after each chunk."""
        return [*self._keys, *self._values]

    def size(self) -> int:
        """Tokens stored."""
        return self.offset

    def empty(self) -> bool:
        """Nothing stored yet."""
        return not self._keys

    def is_trimmable(self) -> bool:
        """The newest tokens can be dropped."""
        return True

    def trim(self, tokens: int) -> int:
        """Drop the newest tokens, and the room that the rest is not counted with; how many were
        dropped.
        """
        dropped = min(tokens, self.offset)
        self.offset -= dropped
        size = grown_tokens(self.offset, self.most_tokens)
        if self._keys and self._keys[0].shape[2] > size:
            self._keys, self._values = _trimmed(self._keys, size), _trimmed(self._values, size)
        return dropped

    @property
    def nbytes(self) -> int:
        """Bytes held, room for growth included."""
        return sum(array.nbytes for array in (*self._keys, *self._values))

    @classmethod
    def merge(cls, caches: Sequence["SequenceKVCache"]) -> Any:
        """A batch of these sequences; mlx-lm's word for starting one."""
        return RaggedKV(list(caches))


def _grown(
    arrays: tuple[mx.array, ...], new: tuple[mx.array, ...], offset: int, size: int
) -> tuple[mx.array, ...]:
    rooms = [
        mx.zeros((*values.shape[:2], size - offset, values.shape[3]), values.dtype)
        for values in new
    ]
    if not offset:
        return tuple(rooms)
    return tuple(
        mx.concatenate([array[..., :offset, :], room], axis=2)
        for array, room in zip(arrays, rooms, strict=True)
    )


def _trimmed(arrays: tuple[mx.array, ...], size: int) -> tuple[mx.array, ...]:
    """The first `size` tokens in arrays of their own; none where there are none."""
    return tuple(mx.contiguous(array[..., :size, :]) for array in arrays) if size else ()


@lru_cache(maxsize=8)
def _rotation(head_dim: int, dtype: mx.Dtype) -> mx.array:
    """An orthonormal Hadamard matrix [head_dim, head_dim]; as a matrix, since those of 96 are not symmetric."""
    return mx.hadamard_transform(mx.eye(head_dim)).astype(dtype)


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


def _attention(queries: Any, keys: Any, values: Any, scale: float, mask: Any, **sizes: Any) -> Any:
    if isinstance(keys, RaggedKV):
        return keys.attend(queries, scale)
    return _quantized_attention(queries, keys, values, scale=scale, mask=mask, **sizes)


_models_base: Any = base
_models_base.quantized_scaled_dot_product_attention = _attention
