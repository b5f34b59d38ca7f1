"""What a model weighs and what its attention looks like, from its config file alone: for plans, before anything is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pensieve.errors import ModelDamagedError


@dataclass(frozen=True, slots=True)
class ModelShape:
    """layers: those that keep every token; kv_heads and head_dim of each. weights_bytes: as they lie on disk, in `bits`
    each (0: not quantized).
    """

    weights_bytes: int
    context_tokens: int
    layers: int
    kv_heads: int
    head_dim: int
    bits: int = 0


# The default model's, from its published config, so that it can be planned before it is fetched.
PHI_3_MINI_SHAPE = ModelShape(2_150_000_000, 131_072, layers=32, kv_heads=32, head_dim=96, bits=4)


def shape_of(folder: Path) -> ModelShape:
    """The shape of the model in `folder`. Raises `ModelDamagedError` where its config does not tell."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        inner: Mapping[str, Any] = config.get("text_config") or config
        heads = int(inner["num_attention_heads"])
        return ModelShape(
            weights_bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
            context_tokens=int(inner["max_position_embeddings"]),
            layers=_attending_layers(inner),
            kv_heads=int(inner.get("num_key_value_heads") or heads),
            head_dim=int(inner.get("head_dim") or inner["hidden_size"] // heads),
            bits=_bits(config.get("quantization")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelDamagedError(
            f"{folder / 'config.json'} does not tell the model's shape: {error!r}."
        ) from error


def _bits(quantization: Mapping[str, Any] | None) -> int:
    """Of most weights; 0 where they are not quantized."""
    return int(quantization["bits"]) if quantization else 0


def _attending_layers(config: Mapping[str, Any]) -> int:
    """Layers with a sliding window or a state keep a bounded amount; they are left out."""
    layers = int(config["num_hidden_layers"])
    if kinds := config.get("layer_types"):
        return sum(kind == "full_attention" for kind in kinds)
    if every := config.get("full_attention_interval") or config.get("sliding_window_pattern"):
        return layers // int(every)
    return layers
