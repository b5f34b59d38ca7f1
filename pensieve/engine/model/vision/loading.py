# pyright: basic
"""Loads the vision tower of a model folder; see engine/planning/tower_files.py."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx import nn  # noqa: TID253

from pensieve.engine.long_operations import Announce, announce_nothing
from pensieve.engine.model.loading import fit_to_device, read_weights
from pensieve.engine.model.vision.positions import use_multi_axis_rope
from pensieve.engine.model.vision.sight import Sight
from pensieve.engine.model.vision.tower import Tower
from pensieve.engine.planning.mtp_files import config_of
from pensieve.engine.planning.tower_files import (
    PREFIXES,
    TowerShape,
    is_of_tower,
    sees,
    tower_shape_of,
)
from pensieve.engine.scheduling.pixel_desk import PixelDesk
from pensieve.settings.resolve import Device

_log = logging.getLogger("pensieve.engine")

_PATCH_WEIGHT = "patch_embed.proj.weight"


def open_sight(model: Any, folder: Path, device: Device, announce: Announce) -> Sight | None:
    """Return what the model in `folder` sees pictures with; None if it has no tower."""
    shape = tower_shape_of(config_of(folder)) if sees(folder) else None
    if shape is None:
        return None
    try:
        rope = use_multi_axis_rope(model)
    except (ValueError, AttributeError, TypeError) as error:
        _log.warning("the model is not shown pictures: %s", error)
        return None
    return Sight(model, shape, rope, partial(load_tower, folder, device, announce), PixelDesk())


def load_tower(folder: Path, device: Device, announce: Announce = announce_nothing) -> Tower:
    """Load the tower of the model in `folder`.

    Its weights stay in bfloat16, which towers need: some overflow in float16. Raises ValueError for
    weights that are not those of such a tower, and what MLX raises for damaged files.
    """
    config = config_of(folder)
    if (shape := tower_shape_of(config)) is None:
        raise ValueError("the model has no vision tower of a known kind")
    weights, prefix = _stored(folder)
    weights[_PATCH_WEIGHT] = _flat_patches(weights[_PATCH_WEIGHT], shape)
    tower = Tower(shape)
    _quantize(tower, weights, config.get("quantization") or {}, prefix)
    tower.load_weights(list(weights.items()))
    tower = fit_to_device(tower, device)
    read_weights(tower, announce)
    return tower


def _stored(folder: Path) -> tuple[dict[str, mx.array], str]:
    """Return the stored weights by their names in `Tower`, and the prefix of these in the files.

    Raises ValueError if there are none.
    """
    stored: dict[str, mx.array] = {}
    for file in sorted(folder.glob("*.safetensors")):
        arrays: Any = mx.load(str(file))
        stored |= {name: array for name, array in arrays.items() if is_of_tower(name)}
    prefix = next((each for each in PREFIXES if each + _PATCH_WEIGHT in stored), None)
    if prefix is None:
        raise ValueError("the model's files have no vision tower")
    return {name.removeprefix(prefix): array for name, array in stored.items()}, prefix


def _flat_patches(weight: mx.array, shape: TowerShape) -> mx.array:
    """Return the convolution's weight as a linear layer's: [width, channel, frame, y, x] flat.

    Conversions to MLX have the channels last.
    """
    if weight.ndim == 5 and weight.shape[-1] == 3 != shape.patch:
        weight = weight.transpose(0, 4, 1, 2, 3)
    return mx.contiguous(weight).reshape(shape.width, -1)


def _quantize(
    tower: Tower, weights: Mapping[str, mx.array], general: Mapping[str, Any], prefix: str
) -> None:
    """Quantize the layers that have scales, as the config says. Most towers have none."""

    def choice(path: str, _: Any) -> Any:
        return f"{path}.scales" in weights and general.get(prefix + path, True)

    if any(name.endswith(".scales") for name in weights):
        mode = general.get("mode", "affine")
        nn.quantize(
            tower, general["group_size"], general["bits"], mode=mode, class_predicate=choice
        )
