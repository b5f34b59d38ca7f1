"""Finds the vision tower of a model by its files: the layers that see, which mlx-lm leaves out.

Conversions that keep only text keep the tower's part of config.json too, so the names of the
stored tensors decide. Used by the worker, which loads towers, and by the front end, which accepts
pictures for models that have one. No MLX.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pensieve.engine.planning.mtp_files import config_of
from pensieve.untrusted_json import read_object

# One tower serves all of them: Qwen3-VL's without "deepstack".
_FAMILIES = frozenset({"qwen3_5", "qwen3_5_moe"})
# Of conversions to MLX, and as Qwen publishes it.
PREFIXES = ("vision_tower.", "model.visual.", "visual.")
# A model that would have less context with the memory for pictures reads text alone.
MIN_SEEING_TOKENS = 32_768
# For the rows of the latest pictures: 26 of 1280 tokens for a model of 4096 values.
ROWS_BYTES = 256 * 10**6
# Of a tower with fused attention, for 8160 patches; by arithmetic, no Mac was measured.
ACTIVATIONS_BYTES = 300 * 10**6
# The sizes' names in `vision_config`, and what they are if it has none.
_KEYS: Mapping[str, tuple[str, int]] = {
    "depth": ("depth", 0),
    "width": ("hidden_size", 0),
    "inner": ("intermediate_size", 0),
    "heads": ("num_heads", 0),
    "table": ("num_position_embeddings", 0),
    "out": ("out_hidden_size", 0),
    "patch": ("patch_size", 16),
    "merge": ("spatial_merge_size", 2),
    "frames": ("temporal_patch_size", 2),
}
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 64 * 2**20
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4, "U8": 1, "I8": 1, "F64": 8}


@dataclass(frozen=True, slots=True)
class TowerShape:
    """The sizes of a tower, as its model's config.json has them."""

    depth: int
    width: int
    inner: int  # of the feed-forward layers
    heads: int
    table: int  # learned positions
    out: int  # the width of the language model
    patch: int = 16  # pixels of a patch's side
    merge: int = 2  # patches of a token's side
    frames: int = 2  # a still picture counts twice

    @property
    def unit(self) -> int:
        """Pixels of the side of one token."""
        return self.patch * self.merge

    @property
    def is_usable(self) -> bool:
        is_square = math.isqrt(self.table) ** 2 == self.table
        return is_square and self.width % (4 * self.heads) == 0


def tower_shape_of(config: Mapping[str, Any]) -> TowerShape | None:
    """Return the sizes of the tower that a config names; None if pensieve has no such tower."""
    vision = config.get("vision_config")
    if config.get("model_type") not in _FAMILIES or not isinstance(vision, dict):
        return None
    fields = cast("dict[str, object]", vision)
    # Qwen3-VL proper feeds rows of some layers into the language model: mlx-lm has no door for it.
    if fields.get("deepstack_visual_indexes"):
        return None
    sizes = {name: fields.get(key, default) for name, (key, default) in _KEYS.items()}
    if not all(type(size) is int and size > 0 for size in sizes.values()):
        return None
    shape = TowerShape(**cast("dict[str, int]", sizes))
    return shape if shape.is_usable else None


def sees(folder: Path) -> bool:
    """Whether the model in `folder` has a tower that pensieve can load."""
    return tower_shape_of(config_of(folder)) is not None and tower_bytes(folder) > 0


def tower_bytes(folder: Path) -> int:
    """Return the bytes of the stored tower; 0 if the folder has none."""
    try:
        return sum(map(_tower_bytes, folder.glob("*.safetensors")))
    except OSError:
        return 0


def sight_bytes(folder: Path) -> int:
    """Return the memory for seeing pictures with the model in `folder`; 0 if it does not."""
    return tower_bytes(folder) + ROWS_BYTES + ACTIVATIONS_BYTES if sees(folder) else 0


def is_of_tower(name: str) -> bool:
    return name.startswith(PREFIXES)


def _tower_bytes(file: Path) -> int:
    """Count the bytes in a file's header: https://huggingface.co/docs/safetensors."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if length > _MAX_HEADER_BYTES:
            return 0
        try:
            tensors = read_object(stream.read(length))
        except ValueError:
            return 0
    return sum(_tensor_bytes(fields) for name, fields in tensors.items() if is_of_tower(name))


def _tensor_bytes(fields: object) -> int:
    tensor = cast("dict[str, object]", fields) if isinstance(fields, dict) else {}
    sizes = cast("list[object]", shape) if isinstance(shape := tensor.get("shape"), list) else [0]
    item_bytes = _ITEM_BYTES.get(str(tensor.get("dtype")), 0)
    return item_bytes * math.prod(size if isinstance(size, int) else 0 for size in sizes)
