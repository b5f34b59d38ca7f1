# pyright: basic
"""Converts one layer's cache, of any kind, to arrays and back.

Used by disk_prefix_cache.py, kv_restorer.py and kv_layout.py; knows no files.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx  # noqa: TID253
import numpy as np
from mlx_lm.models.cache import KVCache  # noqa: TID253

from pensieve.engine.disk.block_file import StoredArray
from pensieve.engine.model.kv.window import WindowKVCache
from pensieve.engine.model.kv_cache import SequenceKVCache

# MLX types that numpy lacks, and numpy types of the same size.
_AS_STORED = {mx.bfloat16: mx.uint16}


def is_trimmable(cache: Any) -> bool:
    """Whether any prefix of the layer can be extracted, so that it can be stored in blocks."""
    return type(cache) in {SequenceKVCache, KVCache}


def layer_arrays(cache: Any, start: int, end: int) -> list[mx.array]:
    """Return the tokens [start, end) of a trimmable layer: arrays [1, heads, tokens, …]."""
    if isinstance(cache, SequenceKVCache):
        return cache.arrays(start, end)
    return [cache.keys[..., start:end, :], cache.values[..., start:end, :]]


def layer_from_arrays(empty: Any, arrays: Sequence[mx.array], tokens: int) -> Any:
    """Make a layer like `empty` from the first `tokens` of `arrays`, which have room for more.

    The opposite of `layer_arrays`.
    """
    if isinstance(empty, SequenceKVCache):
        return SequenceKVCache.from_arrays(arrays, empty, tokens)
    return type(empty).from_state((arrays[0], arrays[1], tokens))


def layer_state(cache: Any, arrays: list[mx.array]) -> Any:
    """Return an untrimmable layer as JSON.

    Its arrays are appended to `arrays`; the JSON refers to them by index.
    """
    state = cache.state
    if isinstance(cache, WindowKVCache):
        state = [cache.arrays(cache.start, cache.offset), cache.offset, cache.max_size]
    return _to_outline(state, arrays)


def layer_from_state(empty: Any, outline: Any, arrays: Sequence[mx.array]) -> Any:
    """Make a layer like `empty` from the results of `layer_state`."""
    state = _from_outline(outline, arrays)
    if not isinstance(empty, WindowKVCache):
        return type(empty).from_state(state)
    own_arrays, tokens, max_size = state
    restored = WindowKVCache.from_arrays(own_arrays, empty, tokens)
    restored.max_size = max_size
    return restored


def trim_to_window(cache: Any) -> None:
    """Drop the tokens of the last chunk that a sliding window's cache holds beyond the window.

    The next tokens would drop them.
    """
    window = getattr(cache, "max_size", None)
    if not window or cache.keep or cache.keys is None or cache.keys.shape[2] <= window:
        return
    cache.keys, cache.values = (
        mx.contiguous(array[..., -window:, :]) for array in (cache.keys, cache.values)
    )
    cache._idx = window  # noqa: SLF001 - mlx-lm has no public way to set it


def to_stored(array: mx.array) -> StoredArray:
    """Convert an evaluated array; copied only if the CPU cannot address MLX's memory."""
    plain = array.view(_AS_STORED[array.dtype]) if array.dtype in _AS_STORED else array
    numbers: Any = np.ascontiguousarray(np.array(plain, copy=False))
    content = memoryview(numbers).cast("B")
    return StoredArray(dtype_name(array.dtype), tuple(array.shape), content)


def dtype_name(dtype: mx.Dtype) -> str:
    """Return MLX's name of a type without `mlx.core.`."""
    return str(dtype).removeprefix("mlx.core.")


def to_mlx(array: StoredArray) -> mx.array:
    """Convert a stored array to MLX."""
    dtype: mx.Dtype = getattr(mx, array.dtype)
    plain = _AS_STORED.get(dtype, dtype)
    numbers = mx.array(np.frombuffer(array.content, dtype=dtype_name(plain)).reshape(array.shape))
    return numbers.view(dtype) if plain != dtype else numbers


def _to_outline(value: Any, arrays: list[mx.array]) -> Any:
    if isinstance(value, mx.array):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, list | tuple):
        return [_to_outline(item, arrays) for item in value]
    if value is None or isinstance(value, int | float | str):
        return value
    raise TypeError(f"unsupported value in a cache: {type(value).__name__}")


def _from_outline(outline: Any, arrays: Sequence[mx.array]) -> Any:
    if isinstance(outline, dict):
        return arrays[outline["array"]]
    if isinstance(outline, list):
        return [_from_outline(item, arrays) for item in outline]
    return outline
