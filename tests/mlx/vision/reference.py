"""What make_reference.py and the tests share: sizes, weights and prompts of tiny models that see.

No MLX and no torch. Weights are drawn large, so that every detail shows in the logits.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["qwen3_5", "qwen3_5_moe"]
KINDS: tuple[Kind, ...] = ("qwen3_5", "qwen3_5_moe")
PAD, START, END = 290, 292, 293
UNIT = 32
# Rows and columns of tokens.
GRIDS = ((4, 6), (2, 2), (3, 1), (1, 8))
TEXT = tuple(range(10, 17))
# Pictures of each prompt, by their numbers in `GRIDS`.
PROMPTS = ((0,), (1, 2), (3, 0), ())
SAID = ((30, 41, 52), (63, 74, 85), (31, 42, 53), (64, 75, 86))
VISION = {
    "depth": 3,
    "hidden_size": 144,
    "intermediate_size": 200,
    "num_heads": 2,  # of 72 values, as the larger towers have
    "num_position_embeddings": 64,
    "out_hidden_size": 96,
}
ROPE = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.25,
    "mrope_section": [6, 5, 5],
    "mrope_interleaved": True,
}
_TEXT = {
    "vocab_size": 300,
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "tie_word_embeddings": False,
}
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
}


def text_config(kind: Kind) -> dict[str, Any]:
    return _TEXT | {"rope_parameters": dict(ROPE)} | (_EXPERTS if kind == "qwen3_5_moe" else {})


def file_of(kind: Kind) -> Path:
    return Path(__file__).with_name(f"reference_{kind}.npz")


def weights_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return the same float32 weights of these names and shapes everywhere."""
    drawn: dict[str, np.ndarray] = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        size = 0.3 if "norm" in name else 0.12
        values = np.random.default_rng(number).standard_normal(shape, np.float32)
        drawn[name] = values * np.float32(size)
    return drawn


def picture(number: int) -> np.ndarray:
    """Return the pixels [height, width, 3] of a picture of `GRIDS`."""
    rows, columns = GRIDS[number]
    shape = (rows * UNIT, columns * UNIT, 3)
    return np.random.default_rng(100 + number).integers(0, 256, shape, np.uint8)


def prompt(pictures: tuple[int, ...]) -> list[int]:
    """Return a prompt's tokens, with a pad for each token of its pictures."""
    tokens = list(TEXT)
    for number in pictures:
        rows, columns = GRIDS[number]
        tokens += [START, *[PAD] * (rows * columns), END, *range(20, 25)]
    return tokens
