"""The figures of a config.json by which the engine builds a model: whether they are believable.

The engine makes an object for each layer and an array of each size before it sees a weight, so a
figure that no model has costs all memory. The largest of 2026: 126 layers, 512 experts, hidden size
18 432, a vocabulary of 262 208.
"""

from collections.abc import Mapping
from typing import Any, cast

# No model does without these; they are whole numbers.
_SIZES = {"num_hidden_layers": 2_000, "hidden_size": 2**20, "vocab_size": 10**7}
# Some models have a number for each layer here, or none.
_BOUNDS = {
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "head_dim": 2**16,
    "intermediate_size": 2**22,
    "moe_intermediate_size": 2**22,
    "num_experts": 10_000,
    "num_local_experts": 10_000,
    "n_routed_experts": 10_000,
}


def unbelievable(config: Mapping[str, Any]) -> str | None:
    """Return the name of the first field whose figure no model has. config: of the text model."""
    for name, most in _SIZES.items():
        value = config.get(name)
        if value is not None and not (type(value) is int and 0 < value <= most):
            return name
    for name, most in _BOUNDS.items():
        value = config.get(name)
        figures = cast("list[object]", value) if isinstance(value, list) else [value]
        if not all(_is_at_most(most, figure) for figure in figures):
            return name
    return None


def _is_at_most(most: int, figure: object) -> bool:
    return figure is None or (isinstance(figure, int | float) and figure <= most)
