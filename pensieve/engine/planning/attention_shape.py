"""What a model's config.json says of its attention: for plans before anything is loaded, and for
the engine where a loaded model does not tell. The one place that looks into nested configs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pensieve.engine.planning.memory_plan import ModelFacts

# Where configs of models that also see or hear keep the part for text.
NESTED_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")
# Published ones have two, one in the other (thinker_config.text_config).
MAX_NESTING = 4
# The names of the context that a model was built for, and what is no such number but a way to say
# that there is no limit.
CONTEXT_KEYS = (
    "max_position_embeddings",
    "max_sequence_length",
    "seq_length",
    "n_positions",
    "n_ctx",
)
NO_LIMIT_TOKENS = 100_000_000
# Families whose attention does not take pensieve's caches, so that they stay in full precision
# (engine/model/cache_maker.py tries it at load; tests/mlx/test_shapes.py holds this list to what it says).
OWN_CACHES = frozenset({"gpt_oss", "gemma2", "deepseek_v2", "deepseek_v3", "mamba", "mamba2"})


@dataclass(frozen=True, slots=True)
class ModelShape:
    """layers: those that keep every token; kv_heads and head_dim of each. weights_bytes: as they
    lie on disk, in `bits` each (0: not quantized).
    """

    weights_bytes: int
    context_tokens: int
    layers: int
    kv_heads: int
    head_dim: int
    bits: int = 0
    query_heads: int = 0  # 0: not known; counted as eight for each KV head
    state_bytes: int = 0  # of one sequence, whatever its length: recurrent states, full windows
    window_token_bytes: int = 0  # keys and values of one token in all layers with a window
    unloaded_bytes: int = 0  # of weights_bytes: what mlx-lm leaves out, such as a vision tower
    is_quantizable: bool = True
    weights: int = 0  # how many there are, each once; 0: not known

    def facts(self, weights_bytes: int | None = None) -> ModelFacts:
        """For `budget.plan`. weights_bytes: in memory, where that differs from the disk."""
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
    """The fields of the text model in a config: its own, over those of the whole."""
    for name in NESTED_CONFIGS if depth else ():
        if inner := _fields(config.get(name)):
            whole = {key: value for key, value in config.items() if key != name}
            return {**whole, **text_part(inner, depth - 1)}
    return config


def shape_from(
    config: Mapping[str, Any], weights_bytes: int, unloaded_bytes: int = 0
) -> ModelShape:
    """Raises KeyError, TypeError or ValueError where the config does not tell."""
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
        is_quantizable=str(text.get("model_type")) not in OWN_CACHES,
    )


def _fields(value: object) -> Mapping[str, Any]:
    """Of a JSON object; none of anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def context_of(text: Mapping[str, Any]) -> int:
    """The tokens that the model was built for; 0 where the config does not tell."""
    return next(filter(None, (tokens_in(text.get(key)) for key in CONTEXT_KEYS)), 0)


def tokens_in(stated: object) -> int:
    """The number of tokens in a field; 0 where it holds none, or says that there is no limit."""
    is_limit = isinstance(stated, int | float) and 0 < stated < NO_LIMIT_TOKENS
    return int(cast("float", stated)) if is_limit else 0


def head_dim_of(text: Mapping[str, Any]) -> int:
    """Values of one head's keys."""
    return int(text.get("head_dim") or int(text["hidden_size"]) // int(text["num_attention_heads"]))


def _attending_layers(text: Mapping[str, Any]) -> int:
    """Layers with a sliding window or a state keep a bounded amount; they are left out."""
    layers = int(text["num_hidden_layers"])
    if kinds := text.get("layer_types"):
        return sum(kind == "full_attention" for kind in kinds)
    if every := text.get("full_attention_interval") or text.get("sliding_window_pattern"):
        return layers // int(every)
    return layers


def _recurrent_bytes(text: Mapping[str, Any]) -> int:
    """Of gated delta nets (Qwen3.5, Qwen3-Next): a state in float32 and the last inputs of a
    convolution, in every layer that does not attend (mlx_lm/models/qwen3_5.py, gated_delta.py).
    """
    if not (value_heads := int(text.get("linear_num_value_heads") or 0)):
        return 0
    key_dim, value_dim = int(text["linear_key_head_dim"]), int(text["linear_value_head_dim"])
    state = value_heads * key_dim * value_dim * 4
    channels = 2 * int(text["linear_num_key_heads"]) * key_dim + value_heads * value_dim
    convolved = (int(text["linear_conv_kernel_dim"]) - 1) * channels * 2
    return (int(text["num_hidden_layers"]) - _attending_layers(text)) * (state + convolved)


def _window_token_bytes(text: Mapping[str, Any]) -> int:
    """Of one token in the layers with a sliding window."""
    kinds = text.get("layer_types")
    if not text.get("sliding_window") or not (kinds or text.get("sliding_window_pattern")):
        return 0
    if kinds:
        layers = sum(kind == "sliding_attention" for kind in kinds)
    else:
        layers = int(text["num_hidden_layers"]) - _attending_layers(text)
    heads = int(text.get("num_key_value_heads") or text["num_attention_heads"])
    return layers * 2 * heads * head_dim_of(text) * 2
