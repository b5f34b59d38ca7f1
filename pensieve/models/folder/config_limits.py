"""The figures of a config.json by which the engine builds a model: whether they are believable.

The engine makes an object for each layer and an array of each size before it sees a weight, so a
figure that no model has costs all memory, and one that does not go with the others fails only when
a prompt is processed. The largest of 2026: 126 layers, 512 experts, hidden size 18 432, a
vocabulary of 262 208.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

# Whole numbers, in models of every kind that have them under one of these names.
_SIZES = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer"), 2_000),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 2**20),
    **dict.fromkeys(("vocab_size", "padded_vocab_size"), 10**7),
}
# The same of attention; the configs of state spaces have 0 or nonsense here, which nothing reads.
_HEADS = {
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_heads", "n_head"), 10_000),
    "num_key_value_heads": 10_000,
    "head_dim": 2**16,
}
_WITHOUT_ATTENTION = frozenset({"falcon_mamba", "mamba", "mamba2", "rwkv7"})
# 0 for none. Some models have a number for each layer here.
_COUNTS = {
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size", "moe_intermediate_size"), 2**22),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 10_000),
    **dict.fromkeys(("num_experts_per_tok", "sliding_window"), 10**9),
}
_QUANTIZATION = {"bits": 16, "group_size": 4096}


def unbelievable(config: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the first field whose figure no model has; None where nothing is.

    config: of the text model.
    """
    found = next(_wrong_figures(config), None)
    return f"has a {found} that no model has" if found else _disagreement(config)


def _wrong_figures(config: Mapping[str, Any]) -> Iterator[str]:
    yield from _outside(config, _SIZES, least=1)
    if config.get("model_type") not in _WITHOUT_ATTENTION:
        yield from _outside(config, _HEADS, least=1)
    yield from _outside(config, _COUNTS, least=0)
    for name in ("quantization", "quantization_config"):
        stated = config.get(name)
        if isinstance(stated, dict):
            fields = cast("dict[str, Any]", stated)
            yield from (f"{name}.{field}" for field in _outside(fields, _QUANTIZATION, least=1))


def _outside(config: Mapping[str, Any], bounds: Mapping[str, int], least: int) -> Iterator[str]:
    """The fields that hold something else than whole numbers from `least` to their bound."""
    for name, most in bounds.items():
        value: object = config.get(name)
        figures = [value]
        if isinstance(value, list) and name not in _SIZES:
            figures = cast("list[object]", value)
        if not all(_is_within(figure, least, most) for figure in figures):
            yield name


def _is_within(figure: object, least: int, most: int) -> bool:
    """An absent one has its default. JSON writers make floats of some numbers."""
    if figure is None:
        return True
    if isinstance(figure, float) and not figure.is_integer():
        return False
    return type(figure) in {int, float} and least <= cast("float", figure) <= most


def _disagreement(config: Mapping[str, Any]) -> str | None:
    """Return which figures do not go together."""
    if config.get("model_type") in _WITHOUT_ATTENTION:
        return None
    heads, hidden = _number(config, "num_attention_heads"), _number(config, "hidden_size")
    kv_heads = _number(config, "num_key_value_heads")
    if heads and kv_heads and heads % kv_heads:
        return f"has {heads} attention heads for {kv_heads} key-value heads, which do not divide"
    has_own_dim = any(name.endswith("head_dim") and config[name] for name in config)
    if heads and hidden and hidden % heads and not has_own_dim:
        return f"has a hidden size of {hidden} for {heads} attention heads, which do not divide"
    chosen = _number(config, "num_experts_per_tok")
    experts = (_number(config, name) for name in ("num_experts", "num_local_experts"))
    if chosen and any(number and chosen > number for number in experts):
        return f"chooses {chosen} experts for each token, more than there are"
    return None


def _number(config: Mapping[str, Any], name: str) -> int:
    """0 where it is no single number."""
    value = config.get(name)
    return int(value) if isinstance(value, int | float) else 0
