"""Tiny random models whose layers differ: full attention, sliding windows, state spaces.

They exist in memory only.
"""

import importlib
from typing import Any

import mlx.core as mx

from tests.support.device import use_device

BASE = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "vocab_size": 256,
    "rope_theta": 10000.0,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "head_dim": 64,
}
GATED_DELTA_NET = {
    "full_attention_interval": 2,
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "phi3": {"num_key_value_heads": 2, "hidden_size": 192, "head_dim": 96},
    "gemma3_text": {
        "sliding_window": 64,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 64,
    },
    "gpt_oss": {"sliding_window": 64, "num_local_experts": 2, "num_experts_per_tok": 1},
    "gemma2": {
        "query_pre_attn_scalar": 64,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "qwen3_next": GATED_DELTA_NET
    | {
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 64,
        "mlp_only_layers": [],
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
        "partial_rotary_factor": 0.25,
    },
    "qwen3_5": GATED_DELTA_NET,
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"] * 2,
        "attention_bias": False,
        "embedding_multiplier": 1.0,
        "attention_multiplier": 0.125,
        "logits_scaling": 1.0,
        "residual_multiplier": 1.0,
        "mamba_n_heads": 2,
        "mamba_d_head": 64,
        "mamba_proj_bias": False,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_n_groups": 1,
        "mamba_conv_bias": True,
    },
}
# Other families with sliding windows, of 16 tokens.
WITH_WINDOWS: dict[str, dict[str, Any]] = {
    family: {
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 64,
    }
    | fields
    for family, fields in {
        "afmoe": {},
        "cohere2": {"sliding_window_pattern": 2},
        "exaone4": {"sliding_window_pattern": "LG", "rope_scaling": None},
        "gemma4_text": {
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 0,
            "global_head_dim": 64,
        },
        "llama": {},
        "ministral3": {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "llama_4_scaling_beta": 0.1,
                "original_max_position_embeddings": 4096,
            }
        },
        "olmo3": {},
        "recurrent_gemma": {
            "attention_bias": False,
            "conv1d_width": 4,
            "lru_width": None,
            "block_types": ["recurrent", "attention"],
            "logits_soft_cap": 30.0,
            "embeddings_scale_by_sqrt_dim": True,
            "attention_window_size": 16,
        },
    }.items()
}


def build(family: str, fields: dict[str, Any] | None = None, **sizes: Any) -> Any:
    """Return a float32 model of the family, the same at every call.

    fields: of its config; None: those in `FAMILIES`. `sizes` replace values of either.
    """
    module = importlib.import_module(f"mlx_lm.models.{family}")
    use_device()
    mx.random.seed(1)
    model = module.Model(
        module.ModelArgs.from_dict(
            BASE | {"model_type": family} | (fields or FAMILIES[family]) | sizes
        )
    )
    # MLX's initial weights are small: larger ones make answers depend on every token before.
    model.update(_scaled(model.parameters()))
    model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    return model


def _scaled(tree: Any) -> Any:
    from mlx.utils import tree_map

    return tree_map(lambda array: array * 3 if array.ndim >= 2 else array, tree)
