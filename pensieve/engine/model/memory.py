# pyright: basic
"""Plans the memory of a loaded model: measures the model and passes it to `memory_plan.plan`.

Called once by the worker. The plan guarantees a context: a prompt and its answer of that length
together always fit when they run alone.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx.utils import tree_flatten  # noqa: TID253
from mlx_lm.models.cache import ArraysCache  # noqa: TID253

from pensieve.engine.generation import ResourceLimits
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.planning.attention_shape import (
    context_of,
    head_dim_of,
    is_quantizable,
    text_part,
)
from pensieve.engine.planning.device_limits import device_limits_on
from pensieve.engine.planning.kv_precision import FULL
from pensieve.engine.planning.memory_plan import MemoryPlan, ModelFacts, plan
from pensieve.machine import inspect
from pensieve.settings.resolve import Device

# For a model whose config does not state its context.
UNBOUNDED_TOKENS = 1 << 22


def plan_memory(
    make_caches: CacheMaker,
    device: Device,
    allowance: ResourceLimits = ResourceLimits(),  # noqa: B008 - a frozen value
    config: Mapping[str, Any] | None = None,
    more_bytes: int = 0,
) -> MemoryPlan:
    """Return the plan for this model on this machine.

    `make_caches` may have any precision; `config` is the model's config.json, or None. more_bytes:
    of its MTP head, and of what it sees pictures with.
    """
    facts, computed_bytes = measure_model(
        make_caches, vars(make_caches.model.args) if config is None else config
    )
    device_info = {} if device == "cpu" else mx.device_info()
    facts = replace(facts, weights_bytes=facts.weights_bytes + more_bytes)
    whole = device_limits_on(inspect(), device, allowance.memory_limit_bytes, device_info)
    device_limits = replace(whole.part_of(allowance.engines), computed_bytes=computed_bytes)
    return plan(facts, device_limits, allowance.kv_bits)


def measure_model(make_caches: CacheMaker, config: Mapping[str, Any]) -> tuple[ModelFacts, int]:
    """Return the facts of a model, or of a rank's part, and the bytes of one computed value.

    Taken from the array shapes of a one-token sequence; nothing is evaluated.
    """
    text = text_part(config)
    batch = [cache.merge([cache]) for cache in replace(make_caches, precision=FULL)()]
    make_caches.model(mx.array([[1]]), cache=batch)
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
        weights_bytes=sum(array.nbytes for array in _flat(make_caches.model.parameters())),
        context_tokens=context_of(text) or UNBOUNDED_TOKENS,
        token_values=sum(layers),
        layer_values=max(layers, default=0),
        query_heads=heads // make_caches.ranks,
        head_dim=head_dim_of(text) if heads else 0,
        state_bytes=state_bytes,
        window_token_bytes=window_token_bytes,
        is_quantizable=make_caches.is_ragged and is_quantizable(text),
    )
    return facts, computed_bytes


def _token_values(cache: Any) -> int:
    """Count the values of one token's keys and values in one layer ([1, heads, tokens, …])."""
    return sum(array.size // array.shape[2] for array in _keys_and_values(cache))


def _token_bytes(cache: Any) -> int:
    return sum(array.nbytes // array.shape[2] for array in _keys_and_values(cache))


def _keys_and_values(cache: Any) -> list[Any]:
    arrays = [array for array in _flat(cache.state) if hasattr(array, "shape")]
    return [array for array in arrays if array.ndim == 4]


def _flat(tree: Any) -> list[Any]:
    flat: Any = tree_flatten(tree)
    return [array for _, array in flat]
