"""Contract with mlx-lm: what the table says of models and ranks, tried with its own classes.

Models have their published size and no weights: MLX computes arrays only when they are evaluated.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.models
import pytest
from mlx_lm.utils import MODEL_REMAPPING, _get_classes

from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.model.memory import measure_model
from pensieve.engine.planning.attention_shape import shape_from
from pensieve.engine.planning.sharding_table import FAMILIES, obstacle, shape_of_rank
from pensieve.engine.ranks.sharding import shard
from tests.mlx.test_shapes import CONFIGS, real_size
from tests.support.tiny_architectures import BASE

QUANTIZED = {"quantization": {"group_size": 64, "bits": 4}}
# The experts of gpt-oss have groups of 32.
GROUPS_OF_32 = {"quantization": {"group_size": 32, "bits": 4}}
LATENT = {
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 32,
    "first_k_dense_replace": 1,
    "rope_scaling": None,
}
EXPERTS = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "moe_layer_freq": 1,
    "first_k_dense_replace": 1,
    "attention_bias": False,
    "use_qk_norm": False,
    "partial_rotary_factor": 0.5,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "n_shared_expert": 1,
    "num_local_experts": 4,
    "shared_intermediate_size": 0,
    "rotary_dim": 32,
}
TINY: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "ministral3": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 4096,
        }
    },
    "glm4_moe": EXPERTS | {"rope_scaling": None},
    "minimax": EXPERTS,
    "deepseek_v3": EXPERTS | LATENT,
    "deepseek_v2": EXPERTS | LATENT | {"topk_method": "gready", "rope_scaling": {"factor": 1}},
}


@dataclass(frozen=True)
class OneOf:
    """A rank that has met no other: what `shard` needs of a group."""

    ranks: int
    own: int = 0

    def size(self) -> int:
        return self.ranks

    def rank(self) -> int:
        return self.own


def tiny(family: str, **fields: Any) -> tuple[Any, dict[str, Any]]:
    config = BASE | {"model_type": family, "num_attention_heads": 4, "num_key_value_heads": 4}
    config |= {"head_dim": 32} | TINY[family] | fields
    module = importlib.import_module(f"mlx_lm.models.{family}")
    return module.Model(module.ModelArgs.from_dict(config)), config


def alone(model: Any) -> Any:
    """Let the part of one rank compute by itself, without what the others would add."""
    group = mx.distributed.init()
    for _, layer in model.named_modules():
        for name in ("group", "sharding_group"):
            if isinstance(getattr(layer, name, None), OneOf):
                setattr(layer, name, group)
    return model


def test_the_table_has_every_family_that_mlx_lm_shards_and_phi_3() -> None:
    modules = [file.stem for file in Path(mlx_lm.models.__path__[0]).glob("[!_]*.py")]
    shardable = {name for name in (*modules, *MODEL_REMAPPING) if has_shard(name)}
    assert set(FAMILIES) - {"phi3"} == shardable
    assert len(shardable) > 30


def has_shard(model_type: str) -> bool:
    try:
        return hasattr(_get_classes({"model_type": model_type})[0], "shard")
    except (ValueError, AttributeError, SystemExit):  # no model in it; olmo.py
        return False


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize(
    "name",
    [
        "phi-3-mini",
        "qwen3-4b",
        "qwen3.5-9b",
        "qwen3.8-27b",
        "gpt-oss-20b",
        "qwen3-coder-30b",
        "qwen3.6-35b",
    ],
)
def test_a_published_model_is_split_where_the_table_allows_it(name: str, ranks: int) -> None:
    quantization = GROUPS_OF_32 if name.startswith("gpt-oss") else QUANTIZED
    config = CONFIGS[name] | quantization
    model = real_size(name)
    if obstacle(config, ranks):
        with pytest.raises((ValueError, AssertionError)):
            shard(model, OneOf(ranks))
        return
    whole, _ = measure_model(CacheMaker(model, is_ragged=True), config)
    shape = shape_of_rank(shape_from(config, whole.weights_bytes), config, ranks)
    shard(model, OneOf(ranks, ranks - 1))
    part, _ = measure_model(CacheMaker(alone(model), is_ragged=True, ranks=ranks), config)
    assert shape.facts(part.weights_bytes) == part
    assert shape.weights_bytes == pytest.approx(part.weights_bytes, rel=0.05)


@pytest.mark.parametrize("family", TINY)
def test_a_tiny_model_of_a_family_is_split_as_the_table_says(family: str) -> None:
    model, config = tiny(family)
    assert obstacle(config, 4) is None
    shard(model, OneOf(4))
    logits = alone(model)(mx.array([[1, 2, 3]]))
    assert logits.shape == (1, 3, 256)
    mx.eval(logits)
