"""Check that the numbers of a config.json, by which the engine builds a model, are plausible.

The engine creates an object per layer and an array per size before it reads a weight, so an
absurd number costs all memory, and an inconsistent one fails only while a prompt is processed. The
largest of 2026: 126 layers, 512 experts, hidden size 18 432, a vocabulary of 262 208.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

# Integers, for all architectures that use one of these names.
_SIZES = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer"), 2_000),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 2**20),
    **dict.fromkeys(("vocab_size", "padded_vocab_size"), 10**7),
}
# The same for attention; state-space models have 0 or nonsense here, which is never read.
_HEADS = {
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_heads", "n_head"), 10_000),
    "num_key_value_heads": 10_000,
    "head_dim": 2**16,
}
_WITHOUT_ATTENTION = frozenset({"falcon_mamba", "mamba", "mamba2", "rwkv7"})
# 0 for none. Some models have one number per layer here.
_COUNTS = {
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size", "moe_intermediate_size"), 2**22),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 10_000),
    **dict.fromkeys(("num_experts_per_tok", "sliding_window"), 10**9),
}
_QUANTIZATION = {"bits": 16, "group_size": 4096}


def implausible_field(config: Mapping[str, Any]) -> str | None:
    """Describe the first implausible number in a text model's config; None if there is none."""
    field = next(_implausible(config), None)
    return f"has a {field} that no model has" if field else _inconsistency(config)


def _implausible(config: Mapping[str, Any]) -> Iterator[str]:
    yield from _outside(config, _SIZES, minimum=1)
    if config.get("model_type") not in _WITHOUT_ATTENTION:
        yield from _outside(config, _HEADS, minimum=1)
    yield from _outside(config, _COUNTS, minimum=0)
    for name in ("quantization", "quantization_config"):
        value = config.get(name)
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            yield from (f"{name}.{field}" for field in _outside(fields, _QUANTIZATION, minimum=1))


def _outside(config: Mapping[str, Any], bounds: Mapping[str, int], minimum: int) -> Iterator[str]:
    """Yield the fields that hold anything but integers from `minimum` to their bound."""
    for name, maximum in bounds.items():
        value: object = config.get(name)
        values = [value]
        if isinstance(value, list) and name not in _SIZES:
            values = cast("list[object]", value)
        if not all(_is_within(each, minimum, maximum) for each in values):
            yield name


def _is_within(value: object, minimum: int, maximum: int) -> bool:
    """Accept absent fields, which have defaults, and integral floats, which JSON writers
    produce.
    """
    if value is None:
        return True
    if isinstance(value, float) and not value.is_integer():
        return False
    return type(value) in {int, float} and minimum <= cast("float", value) <= maximum


def _inconsistency(config: Mapping[str, Any]) -> str | None:
    """Describe numbers that contradict each other."""
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
    """Return 0 if the field is not a single number."""
    value = config.get(name)
    return int(value) if isinstance(value, int | float) else 0
