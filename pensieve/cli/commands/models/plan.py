"""`pensieve plan`: how much context a model gets on this machine, or on another, before anything is loaded."""

from dataclasses import replace
from json import dumps
from typing import Annotated, Literal

from cyclopts import Parameter

from pensieve.cli.commands.server.start_options import Allowed, allowed_by_setting
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import in_bytes
from pensieve.engine.planning.kv_precision import KVPrecision
from pensieve.engine.planning.memory_plan import choices
from pensieve.machine import inspect
from pensieve.models.catalog.expected_model import shape_by_source
from pensieve.models.catalog.memory_fit import (
    FitEstimate,
    MemoryLimit,
    estimate_fit,
    estimate_fit_at,
    memory_limit_here,
    memory_limit_of_mac,
)
from pensieve.models.catalog.recommend import fitting, resolve_auto_on
from pensieve.models.catalog.sources import AUTOMATIC_WORDS, find
from pensieve.models.fetching.fetch import check_here
from pensieve.models.folder.config_shape import ModelShape
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings

GIB = 2**30
MOST_NAMED = 4
# One that is too slow for a dense 27B, and is sold with the memory for one.
SLOW_CHIP = "Apple M4 Pro"

ModelToPlan = Annotated[
    Literal["auto", "auto:fast"] | str | None,
    Parameter(metavar="NAME", show_choices=False, validator=allowed_by_setting("model")),
]
# As much as no Mac has.
MAX_RAM_GB = 65_536
Ram = Annotated[
    int | None,
    Parameter(
        metavar="GB",
        validator=Allowed(
            f"a whole number of GB from 1 to {MAX_RAM_GB}, such as 16",
            range(1, MAX_RAM_GB + 1).__contains__,
        ),
    ),
]


def plan(
    *,
    model: ModelToPlan = None,
    ram: Ram = None,
    json: bool = False,
) -> int:
    """Show how much context fits into memory, by the precision of the KV cache.

    For example:
      pensieve plan
      pensieve plan --model qwen3.5-9b       # before it is fetched
      pensieve plan --model phi-3-mini --ram 8
      pensieve plan --model auto --ram 32    # what suits a Mac with 32 GB

    Parameters
    ----------
    model
        The model to plan for, auto or auto:fast; the one that `start` would take unless
        given.
    ram
        Plan for a Mac with so many gigabytes instead of this machine.
    json
        Print one JSON object instead.
    """
    settings = settings_module.resolve(settings_module.Flags(model=model))
    memory_bytes = ram * GIB if ram else inspect().memory_bytes
    room = _room_of_mac(ram, settings) if ram else memory_limit_here(inspect(), settings)
    is_other_mac = bool(ram) and settings.model in AUTOMATIC_WORDS
    source = resolve_auto_on(room, settings.model) if is_other_mac else find(settings.model)
    check_here(source, settings.paths)
    shape = shape_by_source(source, settings)
    name = source.name if settings.model in AUTOMATIC_WORDS else settings.model
    if json:
        told = {"model": name, "memory_bytes": memory_bytes, **figures(shape, room)}
        output.data(dumps(told, indent=2))
        return 0
    output.data(f"{name} with {memory_bytes / GIB:.0f} GB of memory")
    output.data(rendered(shape, room))
    if is_other_mac and (slower := resolve_auto_on(room, settings.model, SLOW_CHIP)) != source:
        output.data(f"  On a chip with less memory bandwidth, such as {SLOW_CHIP}: {slower.name}")
    return 0


def _room_of_mac(ram: int, settings: Settings) -> MemoryLimit:
    return replace(memory_limit_of_mac(ram * GIB), kv_bits=settings.kv_bits)


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
