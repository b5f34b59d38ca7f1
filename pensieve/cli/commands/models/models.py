"""`pensieve models`: which models there are, what each needs, and how much context it gets on this machine."""

from dataclasses import replace
from json import dumps

from pensieve.cli.client.target import served_name
from pensieve.cli.commands.server.model_suggestion import suggestion
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import in_bytes
from pensieve.daemon.server_record import current
from pensieve.engine.planning.memory_plan import AMPLE_CONTEXT_TOKENS
from pensieve.errors import ModelError
from pensieve.machine import inspect
from pensieve.models.catalog.cards import card_of
from pensieve.models.catalog.memory_fit import MemoryLimit, estimate_fit, memory_limit_here
from pensieve.models.folder.config_shape import ModelShape, shape_of
from pensieve.models.folder.installed import InstalledModel, installed_models
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings

GIB = 2**30
COLUMNS = f"  {'':<20} {'size':>8} {'needs':>9} {'context here':>13}"


def models(*, json: bool = False) -> int:
    """List the models worth running, and those that are on this machine.

    For example:
      pensieve models
      pensieve show qwen3.5-9b
      pensieve pull qwen3.5-9b && pensieve use qwen3.5-9b

    Any other mlx-lm model works too, by its Hugging Face name: owner/name.

    Parameters
    ----------
    json
        Print one JSON object instead.
    """
    settings = settings_module.resolve()
    machine = inspect()
    room = memory_limit_here(machine, settings)
    named = replace(settings, model=served_name(settings.model))
    entries = [entry_of(model, room, named) for model in installed_models(settings.paths.models)]
    if json:
        output.data(dumps({"limit_bytes": room.limit_bytes, "models": entries}, indent=2))
        return 0
    output.data("\n".join([COLUMNS, *map(row, entries)]))
    output.hint(_footer(room))
    if output.is_watched() and (words := suggestion(settings, machine)):
        output.note(f"\n{words}")
    return 0


def entry_of(model: InstalledModel, room: MemoryLimit, settings: Settings) -> dict[str, object]:
    """One model as JSON has it; null where its shape is not known."""
    shape = shape_of_shelved(model)
    card = card_of(model.source)
    fitted = estimate_fit(shape, room) if shape else None
    return {
        "name": model.source.name,
        "repo": model.source.repo,
        "size_bytes": model.size_bytes or (shape.weights_bytes if shape else None),
        "needs_bytes": fitted.needs_bytes if fitted else None,
        "context_tokens": fitted.context_tokens if fitted else None,
        "is_here": model.is_here,
        "partial_bytes": model.partial_bytes,
        "is_served": is_served(model, settings),
        "is_chosen": model.source.name == settings.model,
        "summary": card.summary if card else None,
    }


def row(entry: dict[str, object]) -> str:
    """One line of the list. A name that is too long for its column pushes the rest aside, and is whole."""
    mark = "*" if entry["is_served"] else " "
    line = (
        f"{mark} {entry['name']:<20} {_bytes(entry['size_bytes']):>8} {_bytes(entry['needs_bytes']):>9}"
        f" {_context(entry['context_tokens']):>13}"
    )
    return f"{line}  {_state(entry)}".rstrip()


def shape_of_shelved(model: InstalledModel) -> ModelShape | None:
    """From its files where they are here, else from the catalog; None where neither tells."""
    try:
        if model.is_here:
            return shape_of(model.folder)
    except ModelError:
        return None
    card = card_of(model.source)
    return card.shape if card else None


def is_served(model: InstalledModel, settings: Settings) -> bool:
    """Whether the running server of this home has it open."""
    record = current(settings.paths)
    return record is not None and record.model == model.source.name


def _state(entry: dict[str, object]) -> str:
    if entry["is_served"]:
        return "served now"
    if entry["is_here"]:
        return "here, chosen" if entry["is_chosen"] else "here"
    if entry["partial_bytes"]:
        return f"{_bytes(entry['partial_bytes'])} here"
    return "chosen" if entry["is_chosen"] else ""


def _bytes(count: object) -> str:
    return in_bytes(count) if isinstance(count, int) else "?"


def _context(tokens: object) -> str:
    if not isinstance(tokens, int):
        return "?"
    return f"{tokens:,}" if tokens else "does not fit"


def _footer(room: MemoryLimit) -> str:
    return (
        f"\nneeds: with {AMPLE_CONTEXT_TOKENS:,} tokens of context."
        f" pensieve may use {in_bytes(room.limit_bytes)} here.\n"
        "pensieve show NAME tells more; pull NAME fetches it; use NAME has it served."
    )
