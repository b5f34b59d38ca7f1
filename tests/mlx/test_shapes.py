"""Tests that what the engine measures of the catalog's models equals their configs and cards.

So a plan and the engine promise the same context. The models have their real size and no weights:
MLX computes arrays only when they are evaluated. The configs are the published ones, without fields
that do not affect sizes.
"""

import importlib
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from pensieve.engine.model.cache_maker import CacheMaker, supports_ragged_kv
from pensieve.engine.model.memory import measure_model
from pensieve.engine.planning.attention_shape import OWN_CACHES, shape_from
from pensieve.engine.planning.device_limits import device_limits_on
from pensieve.engine.planning.memory_plan import ModelFacts, plan
from pensieve.machine import GIB, Machine
from pensieve.models.catalog.cards import CARDS, ModelCard
from pensieve.models.catalog.memory_fit import estimate_fit, memory_limit_on
from tests.support import tiny_architectures

QWEN35 = {
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "linear_num_value_heads": 32,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "rms_norm_eps": 1e-6,
    "vocab_size": 248_320,
    "max_position_embeddings": 262_144,
    "num_hidden_layers": 32,
    "tie_word_embeddings": False,
}
# From THUDM/slime (scripts/models/qwen3.5-27B.sh); Qwen3.6-27B and Qwen3.8-27B are equal.
QWEN_27B = {
    "model_type": "qwen3_5",
    "text_config": QWEN35
    | {
        "hidden_size": 5120,
        "intermediate_size": 17_408,
        "num_hidden_layers": 64,
        "num_attention_heads": 24,
        "linear_num_value_heads": 48,
    },
}
GPT_OSS = {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_experts_per_tok": 4,
    "vocab_size": 201_088,
    "sliding_window": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 150_000,
    "max_position_embeddings": 131_072,
}
EXPERTS = {
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_key_value_heads": 2,
    "hidden_size": 2048,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "phi-3-mini": {
        "model_type": "phi3",
        "hidden_size": 3072,
        "num_hidden_layers": 32,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5,
        "vocab_size": 32_064,
        "max_position_embeddings": 131_072,
    },
    "smollm2-135m": {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rms_norm_eps": 1e-5,
        "vocab_size": 49_152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "qwen3-4b": {
        "model_type": "qwen3",
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5e6,
        "vocab_size": 151_936,
        "max_position_embeddings": 262_144,
        "tie_word_embeddings": True,
    },
    "qwen3.5-4b": {
        "model_type": "qwen3_5",
        "text_config": QWEN35
        | {"hidden_size": 2560, "intermediate_size": 9216, "tie_word_embeddings": True},
    },
    "qwen3.5-9b": {
        "model_type": "qwen3_5",
        "text_config": QWEN35 | {"hidden_size": 4096, "intermediate_size": 12_288},
    },
    "gpt-oss-20b": GPT_OSS
    | {
        "num_hidden_layers": 24,
        "num_local_experts": 32,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
    },
    "gpt-oss-120b": GPT_OSS
    | {
        "num_hidden_layers": 36,
        "num_local_experts": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 18,
    },
    "qwen3.6-27b": QWEN_27B,
    "qwen3.8-27b": QWEN_27B,
    "qwen3.8-27b-8bit": QWEN_27B,
    "qwen3-coder-30b": {
        "model_type": "qwen3_moe",
        **EXPERTS,
        "num_hidden_layers": 48,
        "intermediate_size": 6144,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 128,
        "moe_intermediate_size": 768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e7,
        "vocab_size": 151_936,
        "max_position_embeddings": 262_144,
        "tie_word_embeddings": False,
    },
    "qwen3.6-35b": {
        "model_type": "qwen3_5_moe",
        "text_config": QWEN35 | EXPERTS | {"num_hidden_layers": 40},
    },
    "qwen3-coder-next": {
        "model_type": "qwen3_next",
        **QWEN35,
        **EXPERTS,
        "num_hidden_layers": 48,
        "intermediate_size": 5120,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "vocab_size": 151_936,
        "rope_theta": 1e7,
        "partial_rotary_factor": 0.25,
    },
}
TESTED_CARDS = [card for card in CARDS if card.model.name in CONFIGS]


def real_size(name: str) -> Any:
    """Return the model in bfloat16, its layers quantized as published."""
    config = CONFIGS[name]
    mx.set_default_device(mx.cpu)
    module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    model = module.Model(module.ModelArgs.from_dict(config))
    model.set_dtype(mx.bfloat16)
    group_size = 32 if name == "smollm2-135m" else 64
    own = getattr(model, "quant_predicate", None)

    def bits_of(path: str, layer: nn.Module) -> Any:
        if not hasattr(layer, "to_quantized"):
            return False
        if config["model_type"] == "gpt_oss":
            is_expert = "experts" in path
            return {
                "group_size": 32 if is_expert else 64,
                "bits": 8 if name == "gpt-oss-20b" and not is_expert else 4,
                "mode": "mxfp4" if is_expert else "affine",
            }
        return own(path, layer) if own else True

    bits = 8 if name.endswith("8bit") else 4
    nn.quantize(model, group_size=group_size, bits=bits, class_predicate=bits_of)
    return model


@pytest.fixture(scope="module")
def engine_facts() -> dict[str, ModelFacts]:
    """What the engine measures of each model."""
    facts: dict[str, ModelFacts] = {}
    for card in TESTED_CARDS:
        config = CONFIGS[card.model.name]
        make_caches = CacheMaker(real_size(card.model.name), is_ragged=True)
        facts[card.model.name], computed_bytes = measure_model(make_caches, config)
        assert computed_bytes == 2
    return facts


def test_first_catalog_models_are_tested() -> None:
    assert {card.model.name for card in TESTED_CARDS} >= {"phi-3-mini", "qwen3.5-9b", "qwen3.6-35b"}


@pytest.mark.parametrize("card", TESTED_CARDS, ids=lambda card: card.model.name)
def test_config_card_and_loaded_model_agree(
    card: ModelCard, engine_facts: dict[str, ModelFacts]
) -> None:
    measured = engine_facts[card.model.name]
    shape = card.shape
    assert shape.facts(measured.weights_bytes) == measured
    config = CONFIGS[card.model.name]
    read = shape_from(config, shape.weights_bytes, shape.unloaded_bytes)
    assert replace(read, bits=shape.bits) == shape
    # The published size includes the tokenizer's files and rounding; SmolLM2's embeddings are
    # larger in GGUF.
    loaded = shape.weights_bytes - shape.unloaded_bytes
    assert loaded == pytest.approx(
        measured.weights_bytes, abs=0.02 * measured.weights_bytes + 15_000_000
    )


@pytest.mark.parametrize("memory_gib", [8, 16, 24, 32, 36, 48, 64, 96, 128, 192, 512])
@pytest.mark.parametrize("chip", ["Apple M1", "Apple M5"])
@pytest.mark.parametrize("kv_bits", [None, 16, 8, 4])
def test_plan_and_engine_promise_the_same_context(
    memory_gib: int, chip: str, kv_bits: int | None, engine_facts: dict[str, ModelFacts]
) -> None:
    machine = Machine(
        "Darwin", "arm64", "3.14.0", macos="26.2", memory_bytes=memory_gib * GIB, chip=chip
    )
    device_info = {"max_recommended_working_set_size": 10**12}
    for card in TESTED_CARDS:
        measured = engine_facts[card.model.name]
        shape = replace(
            card.shape, weights_bytes=measured.weights_bytes + card.shape.unloaded_bytes
        )
        engine = plan(measured, device_limits_on(machine, "gpu", device_info=device_info), kv_bits)
        planned = estimate_fit(shape, replace(memory_limit_on(machine), kv_bits=kv_bits))
        assert planned.context_tokens == engine.context_tokens
        assert planned.precision == engine.precision
        assert planned.reason == engine.reason
        assert planned.kv_bytes == engine.budget.kv_bytes


@pytest.mark.parametrize("family", list(tiny_architectures.FAMILIES))
def test_own_caches_lists_families_without_ragged_kv(family: str) -> None:
    assert (family in OWN_CACHES) != supports_ragged_kv(tiny_architectures.build(family))
