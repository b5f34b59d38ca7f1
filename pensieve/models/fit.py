"""What a model gets of a machine's memory: the arithmetic that plan, models, show and doctor say before anything is loaded.

The engine decides by the same rules with measured figures (engine/memory.py); these are estimates of what it will say.
"""

from dataclasses import dataclass, replace

from pensieve.engine.budget import (
    ENOUGH_CONTEXT_TOKENS,
    GB,
    PROCESS_BYTES,
    TRANSIENT_BYTES,
    AttentionShape,
    KVBudget,
    kv_room,
    limit_bytes,
    mac_working_set,
    precisions,
)
from pensieve.engine.precision import KVPrecision
from pensieve.machine import Machine
from pensieve.models.shape import ModelShape
from pensieve.settings import Settings


@dataclass(frozen=True, slots=True)
class Room:
    """What pensieve may use in all. is_cpu: weights and KV caches are expanded to 4 bytes a value there (engine/weights.py).

    kv_bits: as asked for; None: as it fits.
    """

    limit_bytes: int
    is_cpu: bool = False
    kv_bits: int | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """One model in one room. context_tokens 0: it does not fit. needs_bytes: for it with enough context, at this precision.

    token_bytes: what a token of context costs. reason: why this precision.
    """

    weights_bytes: int
    kv_bytes: int
    precision: KVPrecision
    token_bytes: int
    context_tokens: int
    needs_bytes: int
    reason: str


def room_here(machine: Machine, settings: Settings) -> Room:
    """The room on this machine, as far as the settings leave it to the machine."""
    asked = int(settings.memory_gb * GB) if settings.memory_gb else None
    if settings.device == "cpu" or (settings.device is None and machine.kind != "apple_silicon"):
        return Room(asked or machine.memory_bytes // 2, is_cpu=True, kv_bits=settings.kv_bits)
    limit = asked or room_of_mac(machine.memory_bytes).limit_bytes
    return Room(limit, kv_bits=settings.kv_bits)


def room_of_mac(memory_bytes: int) -> Room:
    """The room on a Mac with so much memory."""
    return Room(limit_bytes(memory_bytes, mac_working_set(memory_bytes)))


def fit(shape: ModelShape, room: Room) -> Fit:
    """What the engine will choose for a model of this shape, and what follows for the context."""
    by_bits = {precision.bits or 16: precision for precision in precisions(shape.head_dim)}
    full = by_bits[16]
    if len(by_bits) == 1:
        reason = f"full precision: heads of {shape.head_dim} values cannot be quantized"
        return fit_at(shape, room, full, reason)
    if room.kv_bits:
        reason = f"{_bits_in_words(room.kv_bits)}, as asked for"
        return fit_at(shape, room, by_bits[room.kv_bits], reason)
    at_full = fit_at(shape, room, full, "full precision, the fastest on a processor")
    if room.is_cpu:
        return at_full
    if at_full.context_tokens >= min(ENOUGH_CONTEXT_TOKENS, shape.context_tokens):
        return replace(at_full, reason=f"full precision holds {at_full.context_tokens:,} tokens")
    reason = f"8-bit: full precision would hold {at_full.context_tokens:,} tokens only"
    return fit_at(shape, room, by_bits[8], reason)


def fit_at(shape: ModelShape, room: Room, precision: KVPrecision, reason: str = "") -> Fit:
    """What a model of this shape gets with its KV caches in this precision."""
    weights = _in_float32(shape) if room.is_cpu else shape.weights_bytes
    kv_bytes = kv_room(room.limit_bytes, weights)
    attention = AttentionShape(shape.layers, shape.kv_heads, shape.head_dim)
    a_token = attention.bytes_per_token(precision, 4 if room.is_cpu else 2)
    enough = min(ENOUGH_CONTEXT_TOKENS, shape.context_tokens)
    return Fit(
        weights_bytes=weights,
        kv_bytes=kv_bytes,
        precision=precision,
        token_bytes=a_token,
        context_tokens=min(KVBudget(kv_bytes, a_token).context_tokens, shape.context_tokens),
        needs_bytes=weights + PROCESS_BYTES + TRANSIENT_BYTES + enough * a_token,
        reason=reason,
    )


def _in_float32(shape: ModelShape) -> int:
    """The weights in float32. A group of 64 quantized ones has a scale and a bias of 16 bits each beside it."""
    bits = shape.bits + 0.5 if shape.bits else 16
    return int(shape.weights_bytes * 32 / bits)


def _bits_in_words(bits: int) -> str:
    return "full precision" if bits == 16 else f"{bits}-bit"
