# pyright: basic
"""The memory contract of a loaded model: what it measures of the model, and the machine's limit, go
into `budget.plan`.

One number follows from it, the context that is guaranteed: so long a prompt and its answer always
fit, alone.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx.utils import tree_flatten  # noqa: TID253
from mlx_lm.models.cache import ArraysCache  # noqa: TID253

from pensieve.engine.generation import ResourceLimits
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.planning.attention_shape import context_of, head_dim_of, text_part
from pensieve.engine.planning.device_limits import device_limits_on
from pensieve.engine.planning.kv_precision import FULL
from pensieve.engine.planning.memory_plan import MemoryPlan, ModelFacts, plan
from pensieve.machine import inspect
from pensieve.settings.resolve import Device

# Of a model whose config does not say for how many tokens it was built.
UNBOUNDED_TOKENS = 1 << 22


def plan_memory(
    make: CacheMaker,
    device: Device,
    allowance: ResourceLimits = ResourceLimits(),  # noqa: B008 - a frozen value
    config: Mapping[str, Any] | None = None,
) -> MemoryPlan:
    """The plan for this model on this machine. make: of the model's caches in full precision.
    config: the model's, where it has one.
    """
    facts, computed_bytes = measured(make, vars(make.model.args) if config is None else config)
    told = {} if device == "cpu" else mx.device_info()
    place = device_limits_on(inspect(), device, allowance.memory_limit_bytes, told)
    return plan(facts, replace(place, computed_bytes=computed_bytes), allowance.kv_bits)


def measured(make: CacheMaker, config: Mapping[str, Any]) -> tuple[ModelFacts, int]:
    """What a model holds, and the bytes of a value that it computes, seen on a sequence of one
    token. Nothing of it is computed: shapes tell.
    """
    text = text_part(config)
    batch = [cache.merge([cache]) for cache in replace(make, precision=FULL)()]
    make.model(mx.array([[1]]), cache=batch)
    layers: list[int] = []
    state_bytes, window_token_bytes, computed_bytes = 0, 0, 2
    for cache in (layer.extract(0) for layer in batch):
        if isinstance(cache, ArraysCache):
            state_bytes += cache.nbytes
        elif window := getattr(cache, "max_size", None):
            state_bytes += _token_bytes(cache) * window
            window_token_bytes += _token_bytes(cache)
        else:
            layers.append(_token_values(cache))
            computed_bytes = _token_bytes(cache) // layers[-1]
    heads = int(text.get("num_attention_heads") or 0)
    facts = ModelFacts(
        weights_bytes=sum(array.nbytes for array in _flat(make.model.parameters())),
        context_tokens=context_of(text) or UNBOUNDED_TOKENS,
        token_values=sum(layers),
        layer_values=max(layers, default=0),
        query_heads=heads,
        head_dim=head_dim_of(text) if heads else 0,
        state_bytes=state_bytes,
        window_token_bytes=window_token_bytes,
        is_quantizable=make.is_ragged,
    )
    return facts, computed_bytes


def _token_values(cache: Any) -> int:
    """Keys and values of one token in one layer (arrays [1, heads, tokens, …])."""
    return sum(array.size // array.shape[2] for array in _keys_and_values(cache))


def _token_bytes(cache: Any) -> int:
    return sum(array.nbytes // array.shape[2] for array in _keys_and_values(cache))


def _keys_and_values(cache: Any) -> list[Any]:
    arrays = [array for array in _flat(cache.state) if hasattr(array, "shape")]
    return [array for array in arrays if array.ndim == 4]


def _flat(tree: Any) -> list[Any]:
    flat: Any = tree_flatten(tree)
    return [array for _, array in flat]
