# pyright: basic
"""KV caches of one layer: `SequenceKVCache` for one sequence, `RaggedKV` for a batch of them.

mlx-lm's own batch cache pads every sequence to the longest and cannot be quantized. Here adding,
removing and moving a sequence copies nothing. Attention runs sequence by sequence; the rest of a
layer runs for the whole batch. (Short rows next to each other in one padded array were tried and
were no faster on an H100: benchmarks/RESULTS.md.)

`RaggedKV` reaches the models through two replaced functions of mlx-lm's `models.base`:
`quantized_scaled_dot_product_attention`, to which mlx-lm routes every cache that has `bits`, and
`scaled_dot_product_attention` for attention sinks, which mlx-lm refuses there, and for CUDA
(kv/composed.py).

Shapes: keys, values and queries [1, heads, tokens, head_dim].
"""

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.models import base  # noqa: TID253
from mlx_lm.models.cache import _BaseCache  # noqa: TID253

from pensieve.engine.model.kv.composed import attention, composed_attention, is_composed
from pensieve.engine.planning.kv_precision import FULL, KVPrecision
from pensieve.engine.planning.memory_plan import MAX_GROWN_TOKENS, grown_tokens

# Up to this many new tokens, a quantized product reads fewer bytes than dequantizing a layer;
# beyond, the fused kernel is faster.
_DECODE_TOKENS = 8


# Bound before `_attention` replaces it in mlx-lm. It accepts mask="causal", despite its annotation.
_quantized_attention: Any = base.quantized_scaled_dot_product_attention
_stock_attention: Any = base.scaled_dot_product_attention


class SequenceKVCache(_BaseCache):
    """One sequence's keys and values in one layer; owned by the sequence.

    Its arrays have capacity for `grown_tokens` of its length, which is what the budget counts. It
    holds at most `max_tokens` tokens.
    """

    # Added to `offset` for the position of the next token: pictures take fewer positions than
    # tokens (vision/positions.py).
    shift = 0

    def __init__(self, precision: KVPrecision = FULL, max_tokens: int = MAX_GROWN_TOKENS) -> None:
        self.precision = precision
        self.max_tokens = max_tokens
        self.offset = 0
        self._keys: tuple[mx.array, ...] = ()
        self._values: tuple[mx.array, ...] = ()
        self._dtype: mx.Dtype = mx.float32

    def append(self, keys: mx.array, values: mx.array) -> None:
        self._dtype = keys.dtype
        start, end = self.offset, self.offset + keys.shape[2]
        new_keys, new_values = self._encode(keys), self._encode(values)
        if not self._keys or self._keys[0].shape[2] < end:
            size = grown_tokens(end, self.max_tokens)
            self._keys = _grow(self._keys, new_keys, start, size)
            self._values = _grow(self._values, new_values, start, size)
        for stored, new in zip((*self._keys, *self._values), (*new_keys, *new_values), strict=True):
            stored[..., start:end, :] = new
        self.offset = end

    def append_and_view(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append, then return views of all keys and values; in full precision only.

        The path of a lone sequence, called once per layer and token: its Python overhead shows on a
        fast GPU.
        """
        start, end = self.offset, self.offset + keys.shape[2]
        if not self._keys or self._keys[0].shape[2] < end:
            self.append(keys, values)
            return self._keys[0][..., :end, :], self._values[0][..., :end, :]
        stored_keys, stored_values = self._keys[0], self._values[0]
        stored_keys[..., start:end, :] = keys
        stored_values[..., start:end, :] = values
        self.offset = end
        return stored_keys[..., :end, :], stored_values[..., :end, :]

    def attend(self, queries: mx.array, scale: float, sinks: mx.array | None = None) -> mx.array:
        """Causal attention of the newest `queries.shape[2]` tokens over all stored tokens."""
        if self.precision.is_rotated:
            rotation = _rotation(queries.shape[-1], queries.dtype)
            return self._attend(queries @ rotation, scale, sinks) @ rotation.T
        return self._attend(queries, scale, sinks)

    def attend_unfused(self, queries: mx.array) -> mx.array:
        """Attention of the newest token in full precision.

        Queries are scaled and grouped by shared keys and values: [1, kv_heads, group, head_dim]. So
        is the result.
        """
        keys, values = self._seen(self._keys, 1)[0], self._seen(self._values, 1)[0]
        return mx.softmax(queries @ keys.swapaxes(-1, -2), axis=-1, precise=True) @ values

    def _attend(self, queries: mx.array, scale: float, sinks: mx.array | None) -> mx.array:
        tokens = queries.shape[2]
        mask = self._mask(tokens)
        keys, values = self._seen(self._keys, tokens), self._seen(self._values, tokens)
        precision = self.precision
        if precision.bits is None:
            return attention(queries, keys[0], values[0], scale=scale, mask=mask, sinks=sinks)
        if precision.can_multiply and tokens <= _DECODE_TOKENS and sinks is None:
            return _quantized_attention(
                queries, keys, values, scale, mask, precision.group_size, precision.bits
            )
        keys, values = self._decode(keys), self._decode(values)
        return attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks)

    def _encode(self, x: mx.array) -> tuple[mx.array, ...]:
        if self.precision.bits is None:
            return (x,)
        if self.precision.is_rotated:
            x = x @ _rotation(x.shape[-1], x.dtype)
        return tuple(mx.quantize(x, self.precision.group_size, self.precision.bits))

    def _decode(self, stored: tuple[mx.array, ...]) -> mx.array:
        weights, scales, biases = stored
        group_size, bits = self.precision.group_size, self.precision.bits
        return mx.dequantize(weights, scales, biases, group_size, bits).astype(self._dtype)

    def _seen(self, arrays: tuple[mx.array, ...], _: int) -> tuple[mx.array, ...]:
        """Return the tokens that the newest tokens see; the second argument is their number."""
        return tuple(array[..., : self.offset, :] for array in arrays)

    def _mask(self, tokens: int) -> Any:
        """Return the mask of the newest tokens over those that they see."""
        return "causal" if tokens > 1 else None

    def make_mask(self, tokens: int, window_size: int | None = None, **_: Any) -> Any:
        """Return the mask for the next tokens."""
        if window_size is not None:
            raise ValueError("these caches have no window")
        return "causal" if tokens > 1 else None

    def arrays(self, start: int, end: int) -> list[mx.array]:
        """Return the stored tokens [start, end), the arrays of keys before those of values."""
        return [array[..., start:end, :] for array in (*self._keys, *self._values)]

    @classmethod
    def from_arrays(
        cls, arrays: Sequence[mx.array], empty: "SequenceKVCache", tokens: int
    ) -> "SequenceKVCache":
        """Make a cache like `empty` from the first `tokens` of `arrays`, which have room for more.

        The opposite of `arrays`. Scales and biases are in the precision that keys were computed in.
        """
        restored = cls(empty.precision, empty.max_tokens)
        half = len(arrays) // 2
        restored._keys, restored._values = tuple(arrays[:half]), tuple(arrays[half:])
        restored._dtype = arrays[half - 1].dtype
        restored.offset = tokens
        return restored

    def copy(self, tokens: int) -> "SequenceKVCache":
        """Copy the first `tokens` tokens."""
        return self.from_arrays(
            [mx.contiguous(array) for array in self.arrays(0, tokens)], self, tokens
        )

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values; several query heads may share one."""
        return self._keys[0].shape[1]

    @property
    def state(self) -> Any:
        """The arrays; mlx-lm evaluates them after each chunk."""
        return [*self._keys, *self._values]

    def size(self) -> int:
        return self.offset

    def empty(self) -> bool:
        return not self._keys

    def is_trimmable(self) -> bool:
        return True

    def trim(self, tokens: int) -> int:
        """Drop the newest tokens and excess capacity; return how many tokens were dropped."""
        dropped = min(tokens, self.offset)
        self.offset -= dropped
        size = grown_tokens(self.offset, self.max_tokens)
        if self._keys and self._keys[0].shape[2] > size:
            self._keys, self._values = _trim(self._keys, size), _trim(self._values, size)
        return dropped

    def rewind(self, tokens: int) -> None:
        """Drop the newest tokens; unlike `trim`, keep the capacity that they needed."""
        self.offset -= tokens

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, unused capacity included."""
        return sum(array.nbytes for array in (*self._keys, *self._values))

    @classmethod
    def merge(cls, caches: Sequence["SequenceKVCache"]) -> Any:
        """Start a batch of these sequences (mlx-lm's name)."""
        return RaggedKV(list(caches))


def _grow(
    arrays: tuple[mx.array, ...], new: tuple[mx.array, ...], offset: int, size: int
) -> tuple[mx.array, ...]:
    additions = [
        mx.zeros((*values.shape[:2], size - offset, values.shape[3]), values.dtype)
        for values in new
    ]
    if not offset:
        return tuple(additions)
    return tuple(
        mx.concatenate([array[..., :offset, :], addition], axis=2)
        for array, addition in zip(arrays, additions, strict=True)
    )


def _trim(arrays: tuple[mx.array, ...], size: int) -> tuple[mx.array, ...]:
    """Copy the first `size` tokens of each array; no arrays if `size` is 0."""
    return tuple(mx.contiguous(array[..., :size, :]) for array in arrays) if size else ()


@lru_cache(maxsize=8)
def _rotation(head_dim: int, dtype: mx.Dtype) -> mx.array:
    """Return an orthonormal Hadamard matrix [head_dim, head_dim].

    A matrix product, not a transform: the matrix for 96 is not symmetric, and its transpose is
    needed.
    """
    return mx.hadamard_transform(mx.eye(head_dim)).astype(dtype)


class RaggedKV(_BaseCache):
    """One layer's caches of sequences of any lengths. Implements mlx-lm's batch cache protocol."""

    group_size = 32
    # In place of positions while a chunk with pictures is processed (vision/positions.py).
    rotation: Any = None

    def __init__(self, sequences: list[SequenceKVCache]) -> None:
        self._set_sequences(sequences)

    def _set_sequences(self, sequences: list[SequenceKVCache]) -> None:
        """Set `bits` unless there is one sequence in full precision.

        mlx-lm calls the attention function that this module replaces for caches that have `bits`.
        For one sequence in full precision the stock function over plain arrays is faster.
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
        """The next position, for rotary embeddings: an int for one sequence, else [batch]."""
        if self.rotation is not None:
            return self.rotation
        if len(self.sequences) == 1:
            return self.sequences[0].offset + self.sequences[0].shift
        return positions_of(tuple([each.offset + each.shift for each in self.sequences]))

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        """Append a chunk [batch, kv_heads, tokens, head_dim].

        Returns plain keys and values for the stock attention, or this cache in place of both.
        """
        if self._plain is not None:
            return self._plain.append_and_view(keys, values)
        rows = zip(self.sequences, _rows(keys), _rows(values), strict=True)
        for sequence, row_keys, row_values in rows:
            sequence.append(row_keys, row_values)
        return self, self

    def attend(self, queries: mx.array, scale: float, sinks: mx.array | None = None) -> mx.array:
        """Attention of each row's queries over its own sequence."""
        if self._is_unfused and queries.shape[2] == 1 and sinks is None:
            return self._attend_unfused(queries, scale)
        pairs = zip(self.sequences, _rows(queries), strict=True)
        rows = [sequence.attend(row, scale, sinks) for sequence, row in pairs]
        return rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=0)

    def _attend_unfused(self, queries: mx.array, scale: float) -> mx.array:
        """Attention of one token per row on a CPU, where MLX has no fused kernel.

        Uses a third of the operations of MLX's own composition, which dominate for short rows.
        """
        batch, heads, _, head_dim = queries.shape
        kv_heads = self.sequences[0].kv_heads
        grouped = (queries * scale).reshape(batch, kv_heads, heads // kv_heads, head_dim)
        pairs = zip(self.sequences, _rows(grouped), strict=True)
        rows = [sequence.attend_unfused(row) for sequence, row in pairs]
        return mx.concatenate(rows, axis=0).reshape(queries.shape)

    def make_mask(self, tokens: int, window_size: int | None = None, **_: Any) -> Any:
        """`attend` masks itself; only the stock attention needs a mask."""
        return self.sequences[0].make_mask(tokens if self._plain else 1, window_size)

    def filter(self, keep: Sequence[int]) -> None:
        self._set_sequences([self.sequences[int(row)] for row in keep])

    def extend(self, other: "RaggedKV") -> None:
        """Add the rows of another batch."""
        self._set_sequences(self.sequences + other.sequences)

    def extract(self, row: int) -> SequenceKVCache:
        """Return one row's cache itself, not a copy, without capacity for dropped tokens."""
        self.sequences[row].trim(0)
        return self.sequences[row]

    def rewind(self, tokens: Sequence[int]) -> None:
        """Drop the newest tokens of each row."""
        for sequence, dropped in zip(self.sequences, tokens, strict=True):
            sequence.rewind(dropped)

    @property
    def state(self) -> Any:
        return [sequence.state for sequence in self.sequences]

    def size(self) -> int:
        """Return the length of the longest row."""
        return max((sequence.offset for sequence in self.sequences), default=0)

    def empty(self) -> bool:
        return all(sequence.empty() for sequence in self.sequences)

    @property
    def nbytes(self) -> int:
        return sum(sequence.nbytes for sequence in self.sequences)


def _rows(batched: mx.array) -> list[mx.array]:
    rows: Any = mx.split(batched, batched.shape[0])
    return rows


# All layers request the same positions in a step and share the array.
@lru_cache(maxsize=8)
def positions_of(offsets: tuple[int, ...]) -> mx.array:
    return mx.array(offsets)


def _is_cache(keys: Any) -> bool:
    """Whether `keys` are a cache of ours, returned in their place by `update_and_fetch`."""
    return isinstance(keys, _BaseCache)


def _attention(queries: Any, keys: Any, values: Any, scale: float, mask: Any, **sizes: Any) -> Any:
    if _is_cache(keys):
        return keys.attend(queries, scale)
    return _quantized_attention(queries, keys, values, scale=scale, mask=mask, **sizes)


def _sinks_attention(  # noqa: PLR0913, PLR0917 -- as in mlx-lm
    queries: Any, keys: Any, values: Any, cache: Any, scale: float, mask: Any, sinks: Any = None
) -> Any:
    if sinks is not None and _is_cache(keys):
        return keys.attend(queries, scale, sinks)
    if sinks is None and isinstance(keys, mx.array) and is_composed(queries, keys, mask):
        return composed_attention(queries, keys, values, scale, mask)
    return _stock_attention(queries, keys, values, cache, scale, mask, sinks)


_models_base: Any = base
_models_base.quantized_scaled_dot_product_attention = _attention
# A model's module binds this one when it is imported.
for _module in [one for name, one in sys.modules.items() if name.startswith("mlx_lm.models.")]:
    if getattr(_module, "scaled_dot_product_attention", None) is _stock_attention:
        vars(_module)["scaled_dot_product_attention"] = _sinks_attention
