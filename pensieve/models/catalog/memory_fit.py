"""What a model gets of a machine's memory: what plan, models, show, doctor and auto say before
anything is loaded.

The engine decides by the same function with what it measures (engine/model/memory.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pensieve.engine.planning.device_limits import device_limits_on
from pensieve.engine.planning.kv_precision import KVPrecision
from pensieve.engine.planning.memory_plan import (
    ACTIVATIONS_BYTES,
    GB,
    PROCESS_BYTES,
    DeviceLimits,
    MemoryPlan,
    needed_bytes,
    plan,
    plan_at,
)
from pensieve.machine import MODERN_MACOS, Machine
from pensieve.models.folder.config_shape import ModelShape
from pensieve.settings.resolve import Device, Settings


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """Where a model would run, and how precisely its KV caches were asked to be kept (None: as it
    fits).
    """

    place: DeviceLimits
    kv_bits: int | None = None

    @property
    def limit_bytes(self) -> int:
        """What pensieve may use in all."""
        return self.place.limit_bytes


@dataclass(frozen=True, slots=True)
class FitEstimate:
    """One model in one room. context_tokens 0: it does not fit. needs_bytes: for it with enough
    context, at this precision.

    token_bytes: what a token of context costs. working_bytes: of the process, and of what it
    computes with while the context is full. reason: why this precision.
    """

    weights_bytes: int
    kv_bytes: int
    precision: KVPrecision
    token_bytes: int
    context_tokens: int
    needs_bytes: int
    working_bytes: int
    reason: str


def memory_limit_here(
    machine: Machine, settings: Settings, told: Mapping[str, Any] | None = None
) -> MemoryLimit:
    """The room on this machine, as far as the settings leave it to the machine. told: MLX's facts
    of the device, where it was asked.
    """
    asked = int(settings.memory_gb * GB) if settings.memory_gb else None
    place = device_limits_on(machine, _device(machine, settings), asked, told)
    return MemoryLimit(place, settings.kv_bits)


def memory_limit_on(machine: Machine) -> MemoryLimit:
    """The room on a machine that nobody has set anything for."""
    return MemoryLimit(
        device_limits_on(machine, "gpu" if machine.kind == "apple_silicon" else "cpu")
    )


def memory_limit_of_mac(memory_bytes: int) -> MemoryLimit:
    """The room on some Mac with so much memory."""
    return memory_limit_on(
        Machine("Darwin", "arm64", "", macos=f"{MODERN_MACOS}", memory_bytes=memory_bytes)
    )


def estimate_fit(shape: ModelShape, room: MemoryLimit) -> FitEstimate:
    """What the engine will choose for a model of this shape, and what follows for the context."""
    facts = shape.facts(_loaded_bytes(shape, room.place))
    return _fit(shape, room, plan(facts, room.place, room.kv_bits))


def estimate_fit_at(shape: ModelShape, room: MemoryLimit, precision: KVPrecision) -> FitEstimate:
    """What a model of this shape gets with its KV caches in this precision."""
    facts = shape.facts(_loaded_bytes(shape, room.place))
    return _fit(shape, room, plan_at(facts, room.place, precision))


def _fit(shape: ModelShape, room: MemoryLimit, planned: MemoryPlan) -> FitEstimate:
    facts = shape.facts(planned.weights_bytes)
    computing = PROCESS_BYTES + ACTIVATIONS_BYTES + planned.windows_bytes
    return FitEstimate(
        weights_bytes=planned.weights_bytes,
        kv_bytes=planned.budget.kv_bytes,
        precision=planned.precision,
        token_bytes=planned.budget.bytes_per_token,
        context_tokens=planned.context_tokens,
        needs_bytes=needed_bytes(facts, room.place, planned.precision),
        working_bytes=computing + planned.scores_bytes + planned.copies_bytes,
        reason=planned.reason,
    )


def _device(machine: Machine, settings: Settings) -> Device:
    return settings.device or ("gpu" if machine.kind == "apple_silicon" else "cpu")


def _loaded_bytes(shape: ModelShape, place: DeviceLimits) -> int:
    """The weights in memory: on Linux's processors in float32. A group of 64 quantized ones has a
    scale and a bias of 16 bits each beside it.
    """
    loaded = shape.weights_bytes - shape.unloaded_bytes
    if place.computed_bytes == 2:
        return loaded
    if shape.weights:
        return shape.weights * 4
    bits = shape.bits + 0.5 if shape.bits else 16
    return int(loaded * 32 / bits)
