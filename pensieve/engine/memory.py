# pyright: basic
"""The memory contract: from the weights, the KV bytes of a token and the machine, what all KV caches together may hold.

One number follows from it, the context that is guaranteed: so long a prompt and its answer always fit, alone.
"""

from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx.utils import tree_flatten  # noqa: TID253
from mlx_lm.models.cache import ArraysCache  # noqa: TID253

from pensieve.engine.budget import (
    ENOUGH_CONTEXT_TOKENS,
    SCORE_BYTES,
    SCORES_SHARE,
    SMALL_MAC_BYTES,
    KVBudget,
    group_size_for,
    kv_room,
    limit_bytes,
    precisions,
)
from pensieve.engine.caches import CacheMaker
from pensieve.engine.chunks import ScoresRoom
from pensieve.engine.generation import Allowance
from pensieve.engine.precision import FULL, KVPrecision
from pensieve.machine import inspect
from pensieve.settings import Device

# What `Allowance.kv_bits` calls full precision.
FULL_BITS = 16
# Head dimensions for which MLX's CUDA build has a fused attention kernel.
FUSED_ON_CUDA = {64, 128}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What was decided for this model on this machine, and why its KV caches are as precise as they are.

    scores: what a chunk's attention scores may take in memory.
    """

    limit_bytes: int
    weights_bytes: int
    precision: KVPrecision
    budget: KVBudget
    reason: str
    scores: ScoresRoom


def plan_memory(
    make: CacheMaker,
    device: Device,
    allowance: Allowance = Allowance(),  # noqa: B008 - a frozen value
) -> MemoryPlan:
    """What was asked for; else the most precise KV cache that holds enough context.

    make: of the model's caches in full precision.
    """
    limit = allowance.memory_limit_bytes or default_limit_bytes(device)
    weights = sum(array.nbytes for array in _flat(make.model.parameters()))
    scores = _scores_room(make.model, device, limit)
    room = kv_room(limit, weights, scores.nbytes)
    full = _measured(make, room)
    precision, reason = _choice(make, device, allowance.kv_bits, full.context_tokens)
    budget = full if precision == FULL else _measured(replace(make, precision=precision), room)
    return MemoryPlan(limit, weights, precision, budget, reason, scores)


def _choice(
    make: CacheMaker, device: Device, asked_bits: int | None, full_tokens: int
) -> tuple[KVPrecision, str]:
    """How precisely KV caches are kept, and why. full_tokens: the context that full precision holds."""
    head_dim = _head_dim(make.model)
    if asked_bits == FULL_BITS:
        return FULL, "full precision, as asked for"
    if obstacle := _obstacle(make, head_dim):
        return FULL, f"full precision: {obstacle}"
    assert head_dim is not None
    if asked_bits is not None:
        return _quantized(asked_bits, head_dim), f"{asked_bits}-bit, as asked for"
    if device == "cpu":
        return FULL, "full precision, the fastest on a processor"
    if full_tokens >= ENOUGH_CONTEXT_TOKENS:
        return FULL, f"full precision holds {full_tokens} tokens"
    return _quantized(8, head_dim), f"8-bit: full precision would hold {full_tokens} tokens only"


def _obstacle(make: CacheMaker, head_dim: int | None) -> str | None:
    """Why this model's caches cannot be quantized, if they cannot."""
    if head_dim is None or not make.is_ragged:
        return "this model keeps caches of its own kind"
    if group_size_for(head_dim) is None:
        return f"heads of {head_dim} values cannot be quantized"
    return None


def _scores_room(model: Any, device: Device, limit: int) -> ScoresRoom:
    """None is needed where a fused kernel keeps scores to itself: Metal has one for every head that MLX runs, CUDA for some."""
    is_fused = device == "cpu" or mx.metal.is_available() or _head_dim(model) in FUSED_ON_CUDA
    heads = getattr(getattr(model, "args", None), "num_attention_heads", None)
    if is_fused or heads is None:
        return ScoresRoom()
    return ScoresRoom(limit // SCORES_SHARE, heads * SCORE_BYTES)


def _quantized(bits: int, head_dim: int) -> KVPrecision:
    """As `budget.precisions` has it, with the quantized product where the device knows it."""
    chosen = next(one for one in precisions(head_dim) if one.bits == bits)
    return replace(chosen, can_multiply=mx.metal.is_available())


def default_limit_bytes(device: Device) -> int:
    """What this machine can give to pensieve in all."""
    memory = inspect().memory_bytes or SMALL_MAC_BYTES
    if device == "cpu":
        return memory // 2
    facts: dict[str, Any] = mx.device_info()
    # Metal tells a working set, CUDA the device's own memory.
    working_set = facts.get("max_recommended_working_set_size") or facts.get("total_memory", memory)
    return limit_bytes(memory, int(working_set))


def _measured(make: CacheMaker, kv_bytes: int) -> KVBudget:
    """What a sequence costs, seen on one of one token."""
    batch = [cache.merge([cache]) for cache in make()]
    mx.eval(make.model(mx.array([[1]]), cache=batch))
    bytes_per_token = sequence_bytes = 0
    for cache in (layer.extract(0) for layer in batch):
        if isinstance(cache, ArraysCache):
            sequence_bytes += cache.nbytes
        elif window := getattr(cache, "max_size", None):
            sequence_bytes += _token_bytes(cache) * window
        else:
            bytes_per_token += _token_bytes(cache)
    return KVBudget(kv_bytes, bytes_per_token, sequence_bytes)


def _token_bytes(cache: Any) -> int:
    """Bytes of one token in one layer, by an array's own room for tokens (keys and values are [1, heads, tokens, …])."""
    arrays = [array for array in _flat(cache.state) if hasattr(array, "shape")]
    return sum(array.nbytes // array.shape[2] for array in arrays if array.ndim == 4)


def _flat(tree: Any) -> list[Any]:
    flat: Any = tree_flatten(tree)
    return [array for _, array in flat]


def _head_dim(model: Any) -> int | None:
    args = getattr(model, "args", None)
    if head_dim := getattr(args, "head_dim", None):
        return head_dim
    heads, hidden = getattr(args, "num_attention_heads", 0), getattr(args, "hidden_size", 0)
    return hidden // heads if heads else None
