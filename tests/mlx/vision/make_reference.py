"""Record what transformers computes for the models and pictures of reference.py.

Run by hand: `PYTHONPATH=. python tests/mlx/vision/make_reference.py`, in an environment with torch,
torchvision and transformers 5.24, which are no dependencies of pensieve.
"""

import json
import sys
from typing import Any

import numpy as np
import torch
import transformers

from tests.mlx.vision.reference import (
    END,
    GRIDS,
    KINDS,
    PAD,
    PROMPTS,
    SAID,
    START,
    VISION,
    Kind,
    file_of,
    picture,
    prompt,
    text_config,
    weights_of,
)


def patches(number: int) -> torch.Tensor:
    """Return a picture's patches as its processor makes them, without scaling."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(
        patch_size=16,
        do_resize=False,
        size={"shortest_edge": 1024, "longest_edge": 10**7},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return processor(images=[picture(number)], return_tensors="pt")["pixel_values"]


def grids(pictures: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([(1, 2 * GRIDS[one][0], 2 * GRIDS[one][1]) for one in pictures])


def logits(model: Any, pictures: tuple[int, ...], said: tuple[int, ...] = ()) -> torch.Tensor:
    tokens = torch.tensor([[*prompt(pictures), *said]])
    if not pictures:
        return model(input_ids=tokens).logits[0]
    return model(
        input_ids=tokens,
        pixel_values=torch.cat([patches(one) for one in pictures]),
        image_grid_thw=grids(pictures),
        mm_token_type_ids=(tokens == PAD).int(),
    ).logits[0]


def record(kind: Kind) -> None:
    name = {"qwen3_5": "Qwen3_5", "qwen3_5_moe": "Qwen3_5Moe"}[kind]
    config = getattr(transformers, f"{name}Config")(
        text_config=text_config(kind),
        vision_config=dict(VISION),
        image_token_id=PAD,
        video_token_id=291,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).float().eval()
    model.requires_grad_(requires_grad=False)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict({key: torch.tensor(x) for key, x in weights_of(shapes).items()})
    recorded: dict[str, Any] = {"shapes": np.array(json.dumps(shapes))}
    for number in range(len(GRIDS)):
        features = model.model.get_image_features(
            patches(number), grids((number,)), return_dict=True
        ).pooler_output
        recorded[f"rows {number}"] = torch.cat(list(features)).numpy()
    for number, pictures in enumerate(PROMPTS):
        recorded[f"logits {number}"] = logits(model, pictures, SAID[number]).numpy()
    np.savez_compressed(file_of(kind), **recorded)


if __name__ == "__main__":
    for each in KINDS:
        record(each)
        sys.stdout.write(f"{file_of(each)}: {file_of(each).stat().st_size} bytes\n")
