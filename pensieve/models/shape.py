"""What a model folder weighs and what its attention looks like, from its files alone: for plans,
before anything is loaded.
"""

import json
from pathlib import Path
from typing import Any

from pensieve.engine.shape import ModelShape, shape_from
from pensieve.errors import ModelDamagedError

__all__ = ["PHI_3_MINI_SHAPE", "ModelShape", "shape_of"]

# The default model's, from its published config, so that it can be planned before it is fetched.
PHI_3_MINI_SHAPE = ModelShape(
    2_150_000_000, 131_072, layers=32, kv_heads=32, head_dim=96, bits=4, query_heads=32
)
# Parts of a weight's name that mlx-lm's text models leave out: what sees and hears, and heads that
# draft tokens.
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
# A safetensors file begins with the length of its header, a JSON object; longer ones are damaged.
MAX_HEADER_BYTES = 100_000_000


def shape_of(folder: Path) -> ModelShape:
    """The shape of the model in `folder`. Raises `ModelDamagedError` where its config does not tell."""
    files = list(folder.glob("*.safetensors"))
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights_bytes = sum(file.stat().st_size for file in files)
        return shape_from(config, weights_bytes, sum(map(_unloaded_bytes, files)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelDamagedError(
            f"{folder / 'config.json'} does not tell the model's shape: {error!r}."
        ) from error


def _unloaded_bytes(file: Path) -> int:
    """Of a safetensors file, by its header; 0 where that cannot be read."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > MAX_HEADER_BYTES:
                return 0
            header: dict[str, Any] = json.loads(opened.read(length))
        return sum(
            int(told["data_offsets"][1]) - int(told["data_offsets"][0])
            for name, told in header.items()
            if UNLOADED_PARTS & set(name.split("."))
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0
