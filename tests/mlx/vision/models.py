"""The tiny models of reference.py as model folders, and their pictures as prompts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np

from pensieve.engine.model.loading import load_weights
from pensieve.engine.model.vision.loading import open_sight
from pensieve.engine.model.vision.sight import Sight
from pensieve.engine.pictures import PromptPicture, picture_token
from tests.mlx.vision.reference import (
    GRIDS,
    PAD,
    VISION,
    Kind,
    file_of,
    picture,
    prompt,
    text_config,
    weights_of,
)
from tests.support.device import DEVICE
from tests.support.tiny_models import byte_level_tokenizer

# As Qwen publishes the weights, or as conversions to MLX store them.
Layout = Literal["hub", "mlx"]


def build(kind: Kind, folder: Path, layout: Layout = "hub", *, has_tower: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": kind,
        "text_config": text_config(kind) | {"full_attention_interval": 4, "model_type": kind},
        "vision_config": VISION,
        "image_token_id": PAD,
    }
    (folder / "config.json").write_text(json.dumps(config))
    byte_level_tokenizer(is_qwen=True, size=270).save(str(folder / "tokenizer.json"))
    shapes = json.loads(str(recorded(kind)["shapes"]))
    weights = {name: mx.array(value) for name, value in weights_of(shapes).items()}
    if not has_tower:
        weights = {name: value for name, value in weights.items() if "visual" not in name}
    if layout == "mlx":
        weights = as_converted(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


def as_converted(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Return the tower's weights as conversions store them, and the others as they are."""
    converted: dict[str, mx.array] = {}
    for name, value in weights.items():
        own = name.replace("model.visual.", "vision_tower.")
        is_patch = own == "vision_tower.patch_embed.proj.weight"
        converted[own] = value.transpose(0, 2, 3, 4, 1) if is_patch else value
    return converted


def recorded(kind: Kind) -> dict[str, np.ndarray]:
    with np.load(file_of(kind)) as arrays:
        return dict(arrays)


def opened(folder: Path) -> tuple[Any, Sight]:
    model = load_weights(folder, DEVICE)
    sight = open_sight(model, folder, DEVICE, lambda work, timeout_s: None)
    assert sight is not None
    return model, sight


def prompt_pictures(pictures: Sequence[int], after: int = 0) -> tuple[PromptPicture, ...]:
    """Return the pictures of `prompt(pictures)`."""
    tokens = prompt(tuple(pictures))
    found: list[PromptPicture] = []
    start = 0
    for number in pictures:
        start = tokens.index(PAD, start)
        one = PromptPicture(f"picture {number}", start + after, *GRIDS[number], pixels_of(number))
        found.append(one)
        start = one.tokens.stop - after
    return tuple(found)


def pixels_of(number: int) -> Any:
    async def pixels() -> bytes:
        return picture(number).tobytes()

    return pixels


def prompt_tokens(pictures: Sequence[int]) -> tuple[int, ...]:
    """Return `prompt(pictures)` with the tokens of its pictures."""
    tokens = prompt(tuple(pictures))
    for one in prompt_pictures(pictures):
        for place, at in enumerate(one.tokens):
            tokens[at] = picture_token(one.id, place)
    return tuple(tokens)
