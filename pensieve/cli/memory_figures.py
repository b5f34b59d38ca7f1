"""What a plan says of a model: contexts by precision, and the verdict."""

from pensieve.cli.ui.progress import in_bytes
from pensieve.engine.planning.kv_precision import KVPrecision
from pensieve.engine.planning.memory_plan import choices
from pensieve.models.catalog.memory_fit import (
    FitEstimate,
    MemoryLimit,
    estimate_fit,
    estimate_fit_at,
)
from pensieve.models.catalog.recommend import fitting
from pensieve.models.folder.config_shape import ModelShape

GIB = 2**30


MOST_NAMED = 4


def rendered(shape: ModelShape, room: MemoryLimit) -> str:
    """The plan as text."""
    chosen = estimate_fit(shape, room)
    rows = [
        f"  for pensieve in all   {in_bytes(room.limit_bytes):>9}",
        f"  weights               {in_bytes(chosen.weights_bytes):>9}",
        f"  to compute with       {in_bytes(chosen.working_bytes):>9}",
        f"  KV caches             {in_bytes(chosen.kv_bytes):>9}",
        "",
        "  KV cache     KiB a token    context",
    ]
    for precision in choices(shape.facts()):
        at = estimate_fit_at(shape, room, precision)
        is_chosen = at.context_tokens and precision.bits == chosen.precision.bits
        mark = "  <- chosen" if is_chosen else ""
        rows.append(
            f"  {_name(precision):<10} {at.token_bytes / 1024:13.1f} {at.context_tokens:10,}{mark}"
        )
    ending = [verdict(shape, chosen)] if chosen.context_tokens else _what_would_fit(shape, room)
    return "\n".join([*rows, "", *(f"  {line}" for line in ending)])


def _what_would_fit(shape: ModelShape, room: MemoryLimit) -> list[str]:
    """Return why nothing is chosen, and what would serve in this room."""
    chosen = estimate_fit(shape, room)
    lines = [
        f"It does not fit: with a context to work in it takes {in_bytes(chosen.needs_bytes)}.",
    ]
    smaller = [
        at
        for each in choices(shape.facts())
        if (at := estimate_fit_at(shape, room, each)).context_tokens
    ]
    if smaller:
        roomiest = max(smaller, key=lambda at: at.context_tokens)
        bits = roomiest.precision.bits or 16
        lines.append(
            f"{_name(roomiest.precision)} holds {roomiest.context_tokens:,} tokens:"
            f" pensieve config set kv_bits {bits}"
        )
    models = ", ".join(card.model.name for card in fitting(room)[:MOST_NAMED])
    return [*lines, f"What fits: {models}." if models else "No model of `pensieve models` fits."]


def figures(shape: ModelShape, room: MemoryLimit) -> dict[str, object]:
    """The plan as JSON has it."""
    chosen = estimate_fit(shape, room)
    return {
        "limit_bytes": room.limit_bytes,
        "weights_bytes": chosen.weights_bytes,
        "working_bytes": chosen.working_bytes,
        "kv_bytes": chosen.kv_bytes,
        "kv_bits": chosen.precision.bits,
        "kv_reason": chosen.reason,
        "context_tokens": chosen.context_tokens,
        "model_context_tokens": shape.context_tokens,
        "needs_bytes": chosen.needs_bytes,
    }


def verdict(shape: ModelShape, chosen: FitEstimate) -> str:
    """What is chosen and why, in a line."""
    if not chosen.context_tokens:
        return "It does not fit. Smaller ones: pensieve models"
    context = f"{chosen.context_tokens:,} tokens of context"
    if chosen.precision.bits:
        return f"{context}, {chosen.reason}."
    whole = (
        ", as many as the model was built for"
        if chosen.context_tokens == shape.context_tokens
        else ""
    )
    return f"{context} in full precision{whole}."


def _name(precision: KVPrecision) -> str:
    return f"{precision.bits}-bit" if precision.bits else "full"
