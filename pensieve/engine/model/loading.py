# pyright: basic
"""Loads the weights of a model folder in the form that runs fastest on the device.

Called once by the worker; also sets MLX's memory limits, and replaces layers by faster ones. Knows
no tokenizer. On Linux CPUs MLX's quantized and half-precision products are 25 to 150 times slower
than float32's (measured on two x86-64 cores, 2026-11-22), so weights are dequantized to float32
there.
"""

import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx import nn  # noqa: TID253
from mlx.utils import tree_flatten  # noqa: TID253

from pensieve.engine.long_operations import PART_BYTES, Announce, announce_nothing, reading_s
from pensieve.settings.resolve import Device

# MLX keeps freed buffers for reuse, by default up to 1.5 times the working set. No budget counts
# them, since MLX frees them before it exceeds its memory limit (`set_memory_limit`).
_BUFFER_CACHE_BYTES = 512 * 1024 * 1024
# On CUDA, from here on a product over several rows reads the weights once. In smaller layers the
# two changes of shape take longer than the product.
_MIN_FLAT_ROWS = 8
_MIN_FLAT_WEIGHTS = 4 << 20


def load_weights(folder: Path, device: Device, announce: Announce = announce_nothing) -> Any:
    """Load the mlx-lm model in `folder` and make `device` this process's default.

    Calls `announce` before reading each part of the weights. Raises what mlx-lm raises for files
    that are missing, damaged or of an unknown architecture. Never runs code from the folder
    (`model_file`).
    """
    model = open_weights(folder, device)
    read_weights(model, announce)
    return model


def open_weights(folder: Path, device: Device) -> Any:
    """Return the model with weights that are read when they are evaluated; see `load_weights`."""
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.gpu if device == "gpu" else mx.cpu)
    mx.set_cache_limit(_BUFFER_CACHE_BYTES)
    model, _ = load_model(_WithoutGenerationConfig(folder), lazy=True)
    return fit_to_device(model, device)


def fit_to_device(model: Any, device: Device) -> Any:
    """Return a model, or a part of one, in the form that runs fastest on the device."""
    from mlx_lm.utils import dequantize_model

    if device == "cpu" and sys.platform == "linux":
        # In this order: the reverse takes more than twice as long.
        model.set_dtype(mx.float32)
        model = dequantize_model(model)
    if device == "gpu" and mx.cuda.is_available():
        flatten_products(model)
    return model


class FlatQuantizedLinear(nn.QuantizedLinear):
    """Multiplies the rows of a decode step [rows, 1, values] as one matrix.

    MLX 0.32.4 multiplies each of them by itself on CUDA: 8 rows by Phi-3-mini's largest layer took
    448 us, 32 rows 1741 us; as one matrix 66 and 91 us (H200, 2026-11-30).
    """

    def __call__(self, x: mx.array) -> mx.array:
        if x.ndim != 3 or x.shape[1] != 1 or x.shape[0] < _MIN_FLAT_ROWS:
            return super().__call__(x)
        return super().__call__(x.swapaxes(0, 1)).swapaxes(0, 1)


def flatten_products(model: Any, min_weights: int = _MIN_FLAT_WEIGHTS) -> None:
    """Make the large quantized layers `FlatQuantizedLinear`s."""
    for _, layer in model.named_modules():
        if type(layer) is nn.QuantizedLinear and layer.weight.size * 32 >= min_weights * layer.bits:
            layer.__class__ = FlatQuantizedLinear


class LogitRows:
    """Has a model compute logits only after chosen tokens of a pass.

    A prompt needs those after its last token alone. mlx-lm's models compute them after every token,
    a tenth to a fifth of the work of a small model. What a model computes logits from are its
    hidden states; those of the newest pass are kept if an MTP head needs them.
    """

    def __init__(self) -> None:
        self._rows: mx.array | None = None
        self.keeps_hidden = False
        self.hidden: mx.array | None = None  # of the newest pass, after each of its tokens

    @contextmanager
    def only(self, rows: Sequence[int]) -> Generator[None]:
        """Have passes in this block return logits [rows, 1, vocabulary].

        A row is a token of the pass: those of all its sequences one after another.
        """
        self._rows = mx.array(list(rows))
        try:
            yield
        finally:
            self._rows = None

    def of(self, hidden: mx.array) -> mx.array:
        if self.keeps_hidden:
            self.hidden = hidden
        if self._rows is None:
            return hidden
        return hidden.reshape(-1, 1, hidden.shape[-1])[self._rows]


def logit_rows_of(model: Any) -> LogitRows | None:
    """Return the rows that this model computes; None if its output layer is not found.

    The layer is named `lm_head` in mlx-lm's models, or is the embedding of the tokens.
    """
    if not isinstance(model, nn.Module):
        return None
    heads = [
        layer
        for path, layer in model.named_modules()
        if path.rpartition(".")[2] == "lm_head" or hasattr(layer, "as_linear")
    ]
    rows = next((layer.logit_rows for layer in heads if isinstance(layer, _Head)), LogitRows())
    for layer in heads:
        if not isinstance(layer, _Head):
            _replace_class(layer)
            layer.logit_rows = rows
    # MLX is lazy: reading a shape computes nothing.
    with rows.only([0]):
        return rows if model(mx.array([[1, 1]])).shape[:2] == (1, 1) else None


class _Head:
    logit_rows: LogitRows


class _LinearHead(_Head):
    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(self.logit_rows.of(x))  # type: ignore[misc]


class _EmbeddingHead(_Head):
    def as_linear(self, x: mx.array) -> mx.array:
        return super().as_linear(self.logit_rows.of(x))  # type: ignore[misc]


def _replace_class(layer: Any) -> None:
    """Replace the class of one layer: its weights keep their names."""
    kind = type(layer)
    head = _EmbeddingHead if hasattr(layer, "as_linear") else _LinearHead
    layer.__class__ = type(kind.__name__, (head, kind), {})


class _WithoutGenerationConfig(type(Path())):
    """A model folder in which mlx-lm finds no generation_config.json.

    mlx-lm 0.32.2 reads the end tokens from it (`utils.load_config`) and fails if the file is not a
    JSON object. This process gets the end tokens with each generation.
    """

    def __truediv__(self, name: Any) -> Path:
        if name == "generation_config.json":
            return Path(os.devnull, name)
        return super().__truediv__(name)


def read_weights(model: Any, announce: Announce, part_bytes: int = PART_BYTES) -> None:
    """Evaluate the weights part by part, so that even a slow disk shows progress."""
    flat: Any = tree_flatten(model.parameters())
    weights: list[mx.array] = [array for _, array in flat]
    total, read = sum(array.nbytes for array in weights), 0
    for part in parts_of(weights, part_bytes):
        nbytes = sum(array.nbytes for array in part)
        announce(
            f"reading the weights ({read / 1e9:.1f} of {total / 1e9:.1f} GB)", reading_s(nbytes)
        )
        mx.eval(part)
        read += nbytes


def parts_of(weights: Sequence[mx.array], max_bytes: int = PART_BYTES) -> list[list[mx.array]]:
    """Split into parts of at most `max_bytes`, or one larger array, in order."""
    parts: list[list[mx.array]] = []
    free = 0
    for array in weights:
        if not parts or array.nbytes > free:
            parts.append([])
            free = max_bytes
        parts[-1].append(array)
        free -= array.nbytes
    return parts


def set_memory_limit(limit_bytes: int) -> None:
    """Make MLX free its cached buffers before it allocates more than this in all."""
    mx.set_memory_limit(limit_bytes)


def set_wired_limit(limit_bytes: int) -> None:
    """Make macOS keep so much of this process in memory.

    Only on request: it is linked to kernel panics (ml-explore/mlx#3186).
    """
    if mx.metal.is_available():
        mx.set_wired_limit(wirable_bytes(limit_bytes, mx.device_info()))


def wirable_bytes(limit_bytes: int, device_info: Mapping[str, Any]) -> int:
    """Limit to the working set that Metal recommends in `device_info`; MLX raises for more."""
    return min(limit_bytes, int(device_info.get("max_recommended_working_set_size", limit_bytes)))
