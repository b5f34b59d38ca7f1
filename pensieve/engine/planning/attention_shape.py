"""Reads the shape of a model's attention from its config.json.

Used to plan before a model is loaded, and by the engine for what a loaded model does not expose.
The only module that knows nested configs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pensieve.engine.planning.memory_plan import ModelFacts

# Keys of the text model's config in models that also see or hear.
NESTED_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")
# Published configs have two levels (thinker_config.text_config).
MAX_NESTING = 4
# Keys of the context that a model was built for. Values from `NO_LIMIT_TOKENS` up mean no limit.
CONTEXT_KEYS = (
    "max_position_embeddings",
    "max_sequence_length",
    "seq_length",
    "n_positions",
    "n_ctx",
)
NO_LIMIT_TOKENS = 100_000_000
# Families whose attention does not work with pensieve's caches, so that these stay in full
# precision (engine/model/cache_maker.py tries it at load; tests/mlx/test_shapes.py compares this
# list with the result).
OWN_CACHES = frozenset({"gemma2", "deepseek_v2", "deepseek_v3", "mamba", "mamba2"})
# Families with attention sinks: MLX's quantized product has none, so that each token would
# dequantize the whole cache.
WITH_SINKS = frozenset({"gpt_oss"})


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a plan needs from a config."""

    weights_bytes: int  # on disk
    context_tokens: int
    layers: int  # those that keep every token
    kv_heads: int  # of each of these layers, as is head_dim
    head_dim: int
    bits: int = 0  # of one weight on disk; 0: not quantized
    query_heads: int = 0  # 0: unknown; counted as eight for each KV head
    state_bytes: int = 0  # of one sequence, whatever its length: recurrent states, full windows
    window_token_bytes: int = 0  # keys and values of one token in all layers with a window
    unloaded_bytes: int = 0  # of weights_bytes: what mlx-lm leaves out, such as a vision tower
    sight_bytes: int = 0  # for pictures, in memory next to the weights, if there is room for them
    is_quantizable: bool = True
    weights: int = 0  # the number of parameters; 0: unknown

    def facts(self, weights_bytes: int | None = None) -> ModelFacts:
        """Return the input of `memory_plan.plan`. `weights_bytes`: in memory, if not as on disk."""
        layer_values = 2 * self.kv_heads * self.head_dim
        loaded = self.weights_bytes - self.unloaded_bytes
        return ModelFacts(
            weights_bytes=loaded if weights_bytes is None else weights_bytes,
            context_tokens=self.context_tokens,
            token_values=self.layers * layer_values,
            layer_values=layer_values,
            query_heads=self.query_heads or 8 * self.kv_heads,
            head_dim=self.head_dim,
            state_bytes=self.state_bytes,
            window_token_bytes=self.window_token_bytes,
            is_quantizable=self.is_quantizable,
        )


def text_part(config: Mapping[str, Any], depth: int = MAX_NESTING) -> Mapping[str, Any]:
    """Return the text model's fields of a config, over those of the whole config."""
    for name in NESTED_CONFIGS if depth else ():
        if inner := _fields(config.get(name)):
            whole = {key: value for key, value in config.items() if key != name}
            return {**whole, **text_part(inner, depth - 1)}
    return config


def shape_from(
    config: Mapping[str, Any], weights_bytes: int, unloaded_bytes: int = 0
) -> ModelShape:
    """Raises KeyError, TypeError or ValueError if a field is missing or invalid."""
    text = text_part(config)
    heads = int(text["num_attention_heads"])
    window_token_bytes = _window_token_bytes(text)
    quantization = _fields(text.get("quantization") or text.get("quantization_config"))
    return ModelShape(
        weights_bytes=weights_bytes,
        context_tokens=context_of(text) or int(text[CONTEXT_KEYS[0]]),
        layers=_attending_layers(text),
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=head_dim_of(text),
        bits=int(quantization.get("bits") or 0),
        query_heads=heads,
        state_bytes=_recurrent_bytes(text)
        + window_token_bytes * int(text.get("sliding_window") or 0),
        window_token_bytes=window_token_bytes,
        unloaded_bytes=unloaded_bytes,
        is_quantizable=is_quantizable(text),
    )


def is_quantizable(text: Mapping[str, Any]) -> bool:
    """Whether the family's KV caches are quantized if a plan says so."""
    return str(text.get("model_type")) not in OWN_CACHES | WITH_SINKS


def _fields(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def context_of(text: Mapping[str, Any]) -> int:
    """Return the context that the model was built for; 0 if the config does not state it."""
    return next(filter(None, (tokens_in(text.get(key)) for key in CONTEXT_KEYS)), 0)


def tokens_in(value: object) -> int:
    """Return a field's number of tokens; 0 if it has none or means no limit."""
    is_limit = isinstance(value, int | float) and 0 < value < NO_LIMIT_TOKENS
    return int(cast("float", value)) if is_limit else 0


def head_dim_of(text: Mapping[str, Any]) -> int:
    """Return the number of values of one head's key."""
    return int(text.get("head_dim") or int(text["hidden_size"]) // int(text["num_attention_heads"]))


def _attending_layers(text: Mapping[str, Any]) -> int:
    """Count the layers that keep every token, without those with a sliding window or a state."""
    layers = int(text["num_hidden_layers"])
    if kinds := text.get("layer_types"):
        return sum(kind == "full_attention" for kind in kinds)
    if every := text.get("full_attention_interval") or text.get("sliding_window_pattern"):
        return layers // int(every)
    return layers


def _recurrent_bytes(text: Mapping[str, Any]) -> int:
    """Return the state bytes of gated delta nets (Qwen3.5, Qwen3-Next).

    Each layer without attention has a state in float32 and the last inputs of a convolution
    (mlx_lm/models/qwen3_5.py, gated_delta.py).
    """
    if not (value_heads := int(text.get("linear_num_value_heads") or 0)):
        return 0
    key_dim, value_dim = int(text["linear_key_head_dim"]), int(text["linear_value_head_dim"])
    state = value_heads * key_dim * value_dim * 4
    channels = 2 * int(text["linear_num_key_heads"]) * key_dim + value_heads * value_dim
    convolved = (int(text["linear_conv_kernel_dim"]) - 1) * channels * 2
    return (int(text["num_hidden_layers"]) - _attending_layers(text)) * (state + convolved)


def _window_token_bytes(text: Mapping[str, Any]) -> int:
    """Return the bytes of one token in all layers with a sliding window."""
    kinds = text.get("layer_types")
    if not text.get("sliding_window") or not (kinds or text.get("sliding_window_pattern")):
        return 0
    if kinds:
        layers = sum(kind == "sliding_attention" for kind in kinds)
    else:
        layers = int(text["num_hidden_layers"]) - _attending_layers(text)
    heads = int(text.get("num_key_value_heads") or text["num_attention_heads"])
    return layers * 2 * heads * head_dim_of(text) * 2
