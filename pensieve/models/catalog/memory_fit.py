"""Estimate a model's context and memory on a machine before anything is loaded.

Used by plan, models, show, doctor and auto. The engine decides by the same function with measured
values (engine/model/memory.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pensieve.engine.planning.device_limits import device_limits_on
from pensieve.engine.planning.kv_precision import KVPrecision
from pensieve.engine.planning.memory_plan import (
    ACTIVATIONS_BYTES,
    GB,
    PROCESS_BYTES,
    DeviceLimits,
    MemoryPlan,
    ModelFacts,
    needed_bytes,
    plan,
    plan_at,
)
from pensieve.engine.planning.tower_files import MIN_SEEING_TOKENS
from pensieve.machine import MODERN_MACOS, Machine
from pensieve.models.folder.config_shape import ModelShape
from pensieve.settings.resolve import Device, Settings


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    device: DeviceLimits
    kv_bits: int | None = None  # requested precision of the KV caches; None: as it fits

    @property
    def limit_bytes(self) -> int:
        """The memory that pensieve may use in total."""
        return self.device.limit_bytes


@dataclass(frozen=True, slots=True)
class FitEstimate:
    weights_bytes: int
    kv_bytes: int
    precision: KVPrecision
    token_bytes: int  # KV cache per token of context
    context_tokens: int  # 0: the model does not fit
    needs_bytes: int  # for the model with enough context at this precision
    working_bytes: int  # of the process, and of its computation with a full context
    reason: str  # for this precision
    sight_bytes: int = 0  # for pictures; 0: the model reads text alone


def memory_limit_here(
    machine: Machine,
    settings: Settings,
    device_facts: Mapping[str, Any] | None = None,  # MLX's, if it was queried
) -> MemoryLimit:
    """Return the limit on this machine: the setting, else computed from the machine. Several
    workers share it.
    """
    requested_bytes = int(settings.memory_gb * GB) if settings.memory_gb else None
    device = device_limits_on(machine, _device(machine, settings), requested_bytes, device_facts)
    return MemoryLimit(device.part_of(settings.workers), settings.kv_bits)


def memory_limit_on(machine: Machine) -> MemoryLimit:
    """Return the limit on a machine without settings."""
    return MemoryLimit(
        device_limits_on(machine, "gpu" if machine.kind == "apple_silicon" else "cpu")
    )


def memory_limit_of_mac(memory_bytes: int) -> MemoryLimit:
    """Return the limit on a Mac with this much memory."""
    return memory_limit_on(
        Machine("Darwin", "arm64", "", macos=f"{MODERN_MACOS}", memory_bytes=memory_bytes)
    )


def estimate_fit(shape: ModelShape, limit: MemoryLimit) -> FitEstimate:
    """Estimate with the precision that the engine will choose for this shape."""
    seeing = _fit(shape, limit, plan(_facts(shape, limit), limit.device, limit.kv_bits))
    if not shape.sight_bytes or seeing.context_tokens >= MIN_SEEING_TOKENS:
        return seeing
    blind = estimate_fit(replace(shape, sight_bytes=0), limit)
    return blind if blind.context_tokens > seeing.context_tokens else seeing


def estimate_fit_at(shape: ModelShape, limit: MemoryLimit, precision: KVPrecision) -> FitEstimate:
    """Estimate with this precision of the KV caches."""
    shape = replace(shape, sight_bytes=estimate_fit(shape, limit).sight_bytes)
    return _fit(shape, limit, plan_at(_facts(shape, limit), limit.device, precision))


def _facts(shape: ModelShape, limit: MemoryLimit) -> ModelFacts:
    return shape.facts(_loaded_bytes(shape, limit.device) + shape.sight_bytes)


def _fit(shape: ModelShape, limit: MemoryLimit, planned: MemoryPlan) -> FitEstimate:
    facts = shape.facts(planned.weights_bytes)
    computing = PROCESS_BYTES + ACTIVATIONS_BYTES + planned.windows_bytes
    return FitEstimate(
        weights_bytes=planned.weights_bytes - shape.sight_bytes,
        kv_bytes=planned.budget.kv_bytes,
        precision=planned.precision,
        token_bytes=planned.budget.bytes_per_token,
        context_tokens=planned.context_tokens,
        needs_bytes=needed_bytes(facts, limit.device, planned.precision),
        working_bytes=computing + planned.scores_bytes + planned.copies_bytes,
        reason=planned.reason,
        sight_bytes=shape.sight_bytes,
    )


def _device(machine: Machine, settings: Settings) -> Device:
    return settings.device or ("gpu" if machine.kind == "apple_silicon" else "cpu")


def _loaded_bytes(shape: ModelShape, device: DeviceLimits) -> int:
    """Return the weights' size in memory; on Linux's CPUs they are float32.

    A group of 64 quantized weights also has a scale and a bias of 16 bits each.
    """
    loaded = shape.weights_bytes - shape.unloaded_bytes
    if device.computed_bytes == 2:
        return loaded
    if shape.weights:
        return shape.weights * 4
    bits = shape.bits + 0.5 if shape.bits else 16
    return int(loaded * 32 / bits)
