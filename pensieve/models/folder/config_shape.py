"""A model's size and attention shape from the files of its folder, to plan before it is loaded.

An MTP head that the engine will load counts as a part of its model.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, cast

from pensieve.engine.planning.attention_shape import ModelShape, shape_from
from pensieve.engine.planning.mtp_files import config_of, has_heads, head_folder_of, head_tensor
from pensieve.errors import ModelDamagedError
from pensieve.models.folder.model_files import read_file, read_header
from pensieve.untrusted_json import read_json

__all__ = ["PHI_3_MINI_SHAPE", "ModelShape", "shape_of"]

# The default model's shape by its published config, so that it can be planned before it is fetched.
PHI_3_MINI_SHAPE = ModelShape(
    2_150_000_000, 131_072, layers=32, kv_heads=32, head_dim=96, bits=4, query_heads=32
)
# Weights with these parts in their names are not loaded by mlx-lm's text models: vision, audio, and
# heads that draft tokens. The engine loads those of some families.
UNLOADED_PARTS = frozenset(
    {
        "vision_tower",
        "visual",
        "vision_model",
        "vision_embed_tokens",
        "embed_vision",
        "audio_tower",
        "embed_audio",
        "multi_modal_projector",
        "mtp",
    }
)
# Errors that malformed files cause in the code that reads them.
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def shape_of(folder: Path) -> ModelShape:
    """Return the shape of the model in `folder`. Raises `ModelDamagedError` if its config lacks
    it.
    """
    files = list(folder.glob("*.safetensors"))
    try:
        config = cast("dict[str, Any]", read_json(read_file(folder / "config.json")))
        weights_bytes = sum(file.stat().st_size for file in files)
        headers = [_header(file) for file in files]
        unloaded = UNLOADED_PARTS - {"mtp"} if has_heads(config) else UNLOADED_PARTS
        unloaded_bytes = sum(_unloaded_bytes(header, unloaded) for header in headers)
        shape = shape_from(config, weights_bytes, unloaded_bytes)
        weights = sum(_weights(_loaded(header, unloaded), config) for header in headers)
        return _with_head(replace(shape, weights=weights), folder, config, headers)
    except _UNREADABLE as error:
        raise ModelDamagedError(
            f"{folder / 'config.json'} does not tell the model's shape: {error!r}."
        ) from error


def _header(file: Path) -> dict[str, Any]:
    """Return a safetensors file's tensors by name; empty if unreadable."""
    try:
        header, _ = read_header(file)
    except (OSError, ValueError):
        return {}
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def _with_head(
    shape: ModelShape, folder: Path, config: dict[str, Any], headers: list[dict[str, Any]]
) -> ModelShape:
    """Add a separate MTP head, unless the model's own files have one."""
    if not has_heads(config) or any(head_tensor(name) for header in headers for name in header):
        return shape
    if (head := head_folder_of(folder)) is None:
        return shape
    files, head_config = list(head.glob("model*.safetensors")), config_of(head)
    return replace(
        shape,
        weights_bytes=shape.weights_bytes + sum(file.stat().st_size for file in files),
        weights=shape.weights + sum(_weights(_header(file), head_config) for file in files),
    )


def _is_in(parts: frozenset[str], name: str) -> bool:
    return bool(parts & set(name.split(".")))


def _loaded(header: dict[str, Any], unloaded: frozenset[str]) -> dict[str, Any]:
    return {name: tensor for name, tensor in header.items() if not _is_in(unloaded, name)}


def _unloaded_bytes(header: dict[str, Any], unloaded: frozenset[str]) -> int:
    tensors = (tensor for name, tensor in header.items() if _is_in(unloaded, name))
    return sum(int(each["data_offsets"][1]) - int(each["data_offsets"][0]) for each in tensors)


def _weights(header: dict[str, Any], config: Mapping[str, Any]) -> int:
    """Count the weights. Quantized layers store them in groups, each with a scale (and a bias)."""
    quantization: dict[str, Any] = config.get("quantization") or {}
    total = 0
    for name, tensor in header.items():
        path, _, kind = name.rpartition(".")
        if kind in {"scales", "biases"} and f"{path}.weight" in header:
            continue
        scales = header.get(f"{path}.scales") if kind == "weight" else None
        own: dict[str, Any] = quantization.get(path) or quantization
        group = int(own.get("group_size", 64))
        total += prod(scales["shape"]) * group if scales else prod(tensor["shape"])
    return total
