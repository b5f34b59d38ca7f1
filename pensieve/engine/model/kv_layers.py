# pyright: basic
"""One layer's cache as arrays and back, whatever kind it is; what disk_prefix_cache.py stores."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx  # noqa: TID253
import numpy as np
from mlx_lm.models.cache import KVCache  # noqa: TID253

from pensieve.engine.disk.block_file import StoredArray
from pensieve.engine.model.kv_cache import SequenceKVCache

# MLX types that numpy does not have, as the ones of the same size that it has.
_AS_STORED = {mx.bfloat16: mx.uint16}


def is_trimmable(cache: Any) -> bool:
    """Any prefix of it can be had, so it can be stored in blocks."""
    return isinstance(cache, SequenceKVCache) or type(cache) is KVCache


def layer_arrays(cache: Any, start: int, end: int) -> list[mx.array]:
    """The tokens [start, end) of a cuttable layer, arrays [1, heads, tokens, …]."""
    if isinstance(cache, SequenceKVCache):
        return cache.arrays(start, end)
    return [cache.keys[..., start:end, :], cache.values[..., start:end, :]]


def layer_from_arrays(empty: Any, arrays: Sequence[mx.array], tokens: int) -> Any:
    """The opposite of `layer_arrays`, for a layer like `empty`: the first `tokens` of arrays with room for more."""
    if isinstance(empty, SequenceKVCache):
        return SequenceKVCache.from_arrays(arrays, empty, tokens)
    return type(empty).from_state((arrays[0], arrays[1], tokens))


def layer_state(cache: Any, arrays: list[mx.array]) -> Any:
    """A layer that cannot be cut, as JSON; its arrays are appended to `arrays` and stand in the JSON by their place."""
    return _outlined(cache.state, arrays)


def layer_from_state(empty: Any, outline: Any, arrays: Sequence[mx.array]) -> Any:
    """The opposite of `layer_state`."""
    return type(empty).from_state(_filled(outline, arrays))


def trim_to_window(cache: Any) -> None:
    """Drop what a sliding window's cache holds of its last chunk beyond the window; the next tokens
    would drop it.
    """
    window = getattr(cache, "max_size", None)
    if not window or cache.keep or cache.keys is None or cache.keys.shape[2] <= window:
        return
    cache.keys, cache.values = (
        mx.contiguous(array[..., -window:, :]) for array in (cache.keys, cache.values)
    )
    cache._idx = window  # noqa: SLF001 - mlx-lm has no other way to say it


def stored(array: mx.array) -> StoredArray:
    """An evaluated array's numbers, not copied where MLX's memory is the processor's."""
    plain = array.view(_AS_STORED[array.dtype]) if array.dtype in _AS_STORED else array
    numbers: Any = np.ascontiguousarray(np.array(plain, copy=False))
    content = memoryview(numbers).cast("B")
    return StoredArray(dtype_name(array.dtype), tuple(array.shape), content)


def dtype_name(dtype: mx.Dtype) -> str:
    """Return MLX's own name for it, without the module's."""
    return str(dtype).removeprefix("mlx.core.")


def loaded(array: StoredArray) -> mx.array:
    """The opposite of `stored`."""
    dtype: mx.Dtype = getattr(mx, array.dtype)
    plain = _AS_STORED.get(dtype, dtype)
    numbers = mx.array(np.frombuffer(array.content, dtype=dtype_name(plain)).reshape(array.shape))
    return numbers.view(dtype) if plain != dtype else numbers


def _outlined(value: Any, arrays: list[mx.array]) -> Any:
    if isinstance(value, mx.array):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, list | tuple):
        return [_outlined(item, arrays) for item in value]
    if value is None or isinstance(value, int | float | str):
        return value
    raise TypeError(f"a cache holds a {type(value).__name__}")


def _filled(outline: Any, arrays: Sequence[mx.array]) -> Any:
    if isinstance(outline, dict):
        return arrays[outline["array"]]
    if isinstance(outline, list):
        return [_filled(item, arrays) for item in outline]
    return outline
