"""Which models several machines can share, and over how many: decided from config.json alone.

Every machine holds a part of each layer (tensor parallelism), by the `shard` methods of mlx-lm
0.32.2, and one of ours for Phi-3 (engine/ranks/sharding.py). Asked before any weight is read or
fetched. No MLX; tests/mlx/ranks/ compare the table with mlx-lm.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from pensieve.engine.planning.attention_shape import ModelShape, head_dim_of, text_part

RANKS = (2, 4, 8)
# How a family's keys and values are split. heads: each rank has some; repeated: ranks may hold the
# same ones; latent: all ranks hold all, which their heads share.
KVSplit = Literal["heads", "repeated", "latent"]


@dataclass(frozen=True, slots=True)
class Family:
    name: str  # for people
    kv: KVSplit = "heads"
    kv_key: str = "num_key_value_heads"
    splits_vocabulary: bool = False  # of an output layer of its own
    counts: tuple[str, ...] = ()  # other numbers in its config that the ranks must divide


_DEEPSEEK = Family("DeepSeek V3, Kimi K2", "latent")
_QWEN_35 = Family(
    "Qwen3.5 to Qwen3.8",
    "repeated",
    splits_vocabulary=True,
    counts=("linear_num_key_heads", "linear_num_value_heads"),
)
# By model type.
FAMILIES: Mapping[str, Family] = {
    "deepseek_v2": Family("DeepSeek V2", "latent"),
    "deepseek_v3": _DEEPSEEK,
    "joyai_llm_flash": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "kimi_k25": _DEEPSEEK,
    "deepseek_v32": Family("DeepSeek V3.2", "latent"),
    "deepseek_v41": Family("DeepSeek V4.1", "latent", counts=("o_groups",)),
    "deepseek_v41_text": Family("DeepSeek V4.1", "latent", counts=("o_groups",)),
    "exaone_moe": Family("EXAONE MoE"),
    "glm4_moe": Family("GLM-4.5 to 4.7"),
    "glm4_moe_lite": Family("GLM-4.7 Flash", "latent"),
    "glm_moe_dsa": Family("GLM-5", "latent"),
    "gpt_oss": Family("gpt-oss"),
    "iquestcoder": Family("IQuest Coder"),
    "iquestloopcoder": Family("IQuest Coder"),
    "kimi_k3": Family("Kimi K3", "latent", counts=("linear_attn_config.num_heads",)),
    "llama": Family("Llama"),
    "longcat_flash": Family("LongCat Flash", "latent"),
    "longcat_flash_ngram": Family("LongCat Flash", "latent"),
    "minimax": Family("MiniMax M2"),
    "minimax_m2": Family("MiniMax M2"),
    "minimax_m3_vl": Family("MiniMax M3", counts=("index_n_heads",)),
    "ministral3": Family("Ministral 3"),
    "mistral": Family("Mistral"),
    "mistral4": Family("Mistral 4", "latent"),
    "muse_spark": Family("Muse Spark", splits_vocabulary=True),
    "phi3": Family("Phi-3"),
    "prism_hadamard_qwen35": _QWEN_35,
    "qwen2": Family("Qwen2"),
    "qwen3": Family("Qwen3"),
    "qwen3_5": _QWEN_35,
    "qwen3_5_moe": _QWEN_35,
    "qwen3_moe": Family("Qwen3 MoE"),
    "solar_open": Family("Solar Open"),
    "step3p5": Family("Step 3.5", kv_key="num_attention_groups"),
    "xverse": Family("XVERSE"),
}
# Layers that are split by their inputs; quantization groups must stay whole.
_ATTENTION_OUTPUTS = (".o_proj", ".o_b_proj", ".out_proj")
_MLP_OUTPUTS = (".down_proj",)
# Widths of feed-forward layers, whose second product is split by its inputs.
_WIDTHS = (
    "intermediate_size",
    "moe_intermediate_size",
    "dense_intermediate_size",
    "shared_intermediate_size",
    "shared_expert_intermediate_size",
    "share_expert_dim",
    "ffn_hidden_size",
    "expert_ffn_hidden_size",
)
_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
# Of methods whose configs do not name the size of a group.
_GROUPS = {"mxfp4": 32, "mxfp8": 32, "nvfp4": 16}
_ANY_GROUP = 64


def family_of(config: Mapping[str, Any]) -> Family | None:
    """Return the family of a model that can be shared; None of one that cannot."""
    return FAMILIES.get(str(config.get("model_type")))


def obstacle(config: Mapping[str, Any], ranks: int) -> str | None:
    """Return, in a sentence, why so many machines cannot share the model; None if they can."""
    model_type = config.get("model_type")
    family = family_of(config)
    if family is None:
        return (
            f"models of type {model_type} cannot be split over several machines; choose one that"
            " can (docs/several-macs.md), or serve whole copies with --replicas"
        )
    try:
        reason = _undivided(family, config, ranks)
        fewest = _undivided(family, config, RANKS[0])
        possible = [str(count) for count in RANKS if not _undivided(family, config, count)]
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        return f"the model's config.json does not tell how it can be split: {error!r}"
    if reason is None:
        return None
    if not possible:
        return f"{fewest}; it cannot be split over several machines at all"
    return f"{reason}; {_listed(possible)} machines can share {family.name}"


def _undivided(family: Family, config: Mapping[str, Any], ranks: int) -> str | None:
    if ranks not in RANKS:
        return f"a model is split over {_listed([*map(str, RANKS)])} machines, not over {ranks}"
    for number, what in _divided(family, config):
        if number % ranks:
            return f"this {family.name} has {number:,} {what}, not a multiple of {ranks}"
    kv_heads = _kv_heads(family, text_part(config))
    if family.kv == "repeated" and kv_heads % ranks and ranks % kv_heads:
        return f"this {family.name} has {kv_heads} KV heads, which {ranks} machines cannot share"
    return None


def _divided(family: Family, config: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield the numbers that the ranks must divide, and what they count."""
    text = text_part(config)
    heads = int(text["num_attention_heads"])
    yield heads, "attention heads"
    if family.kv == "heads":
        yield _kv_heads(family, text), "KV heads"
    for key in family.counts:
        if count := _number(text, key):
            yield count, key.replace("linear_num_", "linear ").replace("_", " ")
    if family.splits_vocabulary and not text.get("tie_word_embeddings"):
        yield int(text["vocab_size"]), "tokens in its vocabulary"
    value_dim = int(text.get("v_head_dim") or head_dim_of(text))
    linear = _number(text, "linear_num_value_heads") * _number(text, "linear_value_head_dim")
    attention = {"attention": heads * value_dim, "linear attention": linear}
    yield from _groups(attention, group_size_of(config, _ATTENTION_OUTPUTS))
    widths = {key.replace("_", " "): _number(text, key) for key in _WIDTHS}
    yield from _groups(widths, group_size_of(config, _MLP_OUTPUTS))


def _groups(inputs: Mapping[str, int], group: int) -> Iterator[tuple[int, str]]:
    """Yield the inputs of products that are split by their inputs, in groups of weights."""
    for name, size in inputs.items():
        yield (size, name) if size % group else (size // group, f"groups of weights ({name})")


def shape_of_rank(shape: ModelShape, config: Mapping[str, Any], ranks: int) -> ModelShape:
    """Return the shape of one rank's part, for a model without an obstacle.

    Its MTP head, which ranks do not use, counts as a part of it.
    """
    family, text = FAMILIES[str(config["model_type"])], text_part(config)
    whole = shape.weights_bytes - shape.unloaded_bytes
    replicated = min(
        whole, int(_replicated_weights(family, text) * (shape.bits + 0.5 if shape.bits else 16) / 8)
    )
    kv_heads = shape.kv_heads if family.kv == "latent" else max(1, shape.kv_heads // ranks)
    part = replicated + (whole - replicated) // ranks
    return replace(
        shape,
        weights_bytes=part,
        unloaded_bytes=0,
        weights=int(shape.weights * part / max(1, whole)),
        kv_heads=kv_heads,
        query_heads=(shape.query_heads or 8 * shape.kv_heads) // ranks,
        state_bytes=shape.state_bytes // ranks,
        window_token_bytes=shape.window_token_bytes // ranks,
    )


def _replicated_weights(family: Family, text: Mapping[str, Any]) -> int:
    """Count the weights that every rank holds: of embeddings, output layer, routers, latents."""
    hidden, layers = _number(text, "hidden_size"), _number(text, "num_hidden_layers")
    has_output = not text.get("tie_word_embeddings") and not family.splits_vocabulary
    experts = next(filter(None, (_number(text, key) for key in _EXPERTS)), 0)
    latents = ("q_lora_rank", "kv_lora_rank", "qk_rope_head_dim") if family.kv == "latent" else ()
    projected = experts + sum(_number(text, key) for key in latents)
    return hidden * (_number(text, "vocab_size") * (1 + has_output) + layers * projected)


def group_size_of(config: Mapping[str, Any], layers: tuple[str, ...]) -> int:
    """Return the weights of a quantization group in layers of these names, the largest of them.

    It is 1 in a model that is not quantized.
    """
    fields = _fields(config.get("quantization")) or _fields(config.get("quantization_config"))
    if not fields:
        return 1
    method = str(fields.get("mode") or fields.get("quant_method"))
    general = int(fields.get("group_size") or _GROUPS.get(method, _ANY_GROUP))
    own = (_fields(value) for path, value in fields.items() if path.endswith(layers))
    return max(general, *(int(layer.get("group_size") or 1) for layer in own), 1)


def _kv_heads(family: Family, text: Mapping[str, Any]) -> int:
    return int(text.get(family.kv_key) or text["num_attention_heads"])


def _number(text: Mapping[str, Any], path: str) -> int:
    """Return a number of the config, 0 if it has none. path: of keys, with dots between them."""
    *parents, key = path.split(".")
    for parent in parents:
        text = _fields(text.get(parent))
    value = text.get(key)
    return value if isinstance(value, int) else 0


def _fields(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _listed(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
