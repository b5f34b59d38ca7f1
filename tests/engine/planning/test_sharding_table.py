"""Which models so many machines can share, by published configs, and what each of them holds."""

import re
from typing import Any

import pytest

from pensieve.engine.planning.attention_shape import shape_from
from pensieve.engine.planning.sharding_table import (
    FAMILIES,
    group_size_of,
    obstacle,
    shape_of_rank,
)
from tests.packaging.project import read

FOUR_BITS = {"quantization": {"group_size": 64, "bits": 4}}
PHI_3_MINI = {
    "model_type": "phi3",
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 8192,
    "vocab_size": 32_064,
    "max_position_embeddings": 131_072,
} | FOUR_BITS
QWEN3_32B = PHI_3_MINI | {
    "model_type": "qwen3",
    "hidden_size": 5120,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 25_600,
    "vocab_size": 151_936,
    "max_position_embeddings": 40_960,
}
GPT_OSS = PHI_3_MINI | {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 2880,
    "quantization": None,
    "quantization_config": {"quant_method": "mxfp4"},
}
QWEN3_8_27B = {
    "model_type": "qwen3_5",
    "text_config": PHI_3_MINI
    | {
        "hidden_size": 5120,
        "num_attention_heads": 24,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "intermediate_size": 17_408,
        "vocab_size": 248_320,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 48,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "full_attention_interval": 4,
    },
} | FOUR_BITS
DEEPSEEK_V3 = PHI_3_MINI | {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "v_head_dim": 128,
    "intermediate_size": 18_432,
    "moe_intermediate_size": 2048,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "n_routed_experts": 256,
    "vocab_size": 129_280,
}


@pytest.mark.parametrize(
    ("config", "ranks"),
    [
        (PHI_3_MINI, {2, 4, 8}),
        (QWEN3_32B, {2, 4, 8}),
        (GPT_OSS, {2}),  # 90 groups of 32
        (QWEN3_8_27B, {2, 4, 8}),  # 8 ranks hold the 4 KV heads twice
        (DEEPSEEK_V3, {2, 4, 8}),
        (QWEN3_32B | {"intermediate_size": 11_008, "quantization": {"group_size": 64}}, {2, 4}),
        (QWEN3_32B | {"intermediate_size": 448}, set()),  # 7 groups of 64
        (QWEN3_32B | {"intermediate_size": 448, "quantization": None}, {2, 4, 8}),
        (QWEN3_32B | {"num_key_value_heads": 2}, {2}),
        (QWEN3_32B | {"num_attention_heads": 28, "num_key_value_heads": 4}, {2, 4}),
    ],
)
def test_ranks_that_divide_heads_and_whole_groups_are_possible(
    config: dict[str, Any], ranks: set[int]
) -> None:
    assert {count for count in range(1, 17) if obstacle(config, count) is None} == ranks


@pytest.mark.parametrize(
    ("config", "ranks", "sentence"),
    [
        (
            PHI_3_MINI | {"num_attention_heads": 12, "num_key_value_heads": 12},
            8,
            "this Phi-3 has 12 attention heads, not a multiple of 8;"
            " 2 or 4 machines can share Phi-3",
        ),
        (
            PHI_3_MINI,
            3,
            "a model is split over 2, 4 or 8 machines, not over 3;"
            " 2, 4 or 8 machines can share Phi-3",
        ),
        (
            GPT_OSS,
            4,
            "this gpt-oss has 90 groups of weights (intermediate size), not a multiple of 4;"
            " 2 machines can share gpt-oss",
        ),
        (
            QWEN3_32B | {"intermediate_size": 448},
            2,
            "this Qwen3 has 7 groups of weights (intermediate size), not a multiple of 2;"
            " it cannot be split over several machines at all",
        ),
        (
            {"model_type": "gemma3"},
            2,
            "models of type gemma3 cannot be split over several machines; choose one that can"
            " (docs/several-macs.md), or serve whole copies with --replicas",
        ),
    ],
)
def test_an_obstacle_says_what_to_do(config: dict[str, Any], ranks: int, sentence: str) -> None:
    assert obstacle(config, ranks) == sentence


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {},
        PHI_3_MINI | {"num_attention_heads": "many"},
        PHI_3_MINI | {"num_attention_heads": 0},
    ],
)
def test_a_malformed_config_is_an_obstacle(config: dict[str, Any]) -> None:
    assert obstacle(config, 2)


def test_groups_are_those_of_the_layers_that_are_split_by_their_inputs() -> None:
    own = {"group_size": 64, "bits": 4}
    published = {"group_size": 32, "mode": "mxfp4", "model.layers.0.self_attn.o_proj": own}
    assert group_size_of({"quantization": published}, (".o_proj",)) == 64
    assert group_size_of({"quantization": published}, (".down_proj",)) == 32
    assert group_size_of({"quantization_config": {"quant_method": "mxfp4"}}, ()) == 32
    assert group_size_of({}, (".o_proj",)) == 1
    assert obstacle(GPT_OSS | {"quantization": published}, 2) is None


def test_a_rank_holds_its_part_and_what_all_hold() -> None:
    whole = shape_from(QWEN3_32B, 18_400_000_000)
    half = shape_of_rank(whole, QWEN3_32B, 2)
    replicated = 2 * 151_936 * 5120 * 4.5 / 8
    assert half.weights_bytes == pytest.approx(replicated + (18.4e9 - replicated) / 2, rel=1e-6)
    assert (half.kv_heads, half.query_heads) == (4, 32)
    assert shape_of_rank(whole, QWEN3_32B, 8).facts().token_values * 8 == whole.facts().token_values


def test_the_documented_families_are_those_of_the_table() -> None:
    rows = re.findall(
        r"^\| ([^|`]+) \| (`\w+`(?:, `\w+`)*) \|$", read("docs/several-macs.md"), re.MULTILINE
    )
    documented = {
        model_type: name for name, types in rows for model_type in re.findall(r"`(\w+)`", types)
    }
    assert documented == {model_type: family.name for model_type, family in FAMILIES.items()}
