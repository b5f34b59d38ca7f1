"""`pensieve models`: which models there are, what each needs, and how much context it gets on this machine."""

from dataclasses import replace
from json import dumps

from pensieve.cli.client.target import served_name
from pensieve.cli.lifecycle.model_suggestion import suggestion
from pensieve.cli.model_facts import entry_of, row
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import in_bytes
from pensieve.engine.planning.memory_plan import AMPLE_CONTEXT_TOKENS
from pensieve.machine import inspect
from pensieve.models.catalog.memory_fit import MemoryLimit, memory_limit_here
from pensieve.models.folder.installed import installed_models
from pensieve.settings import resolve as settings_module

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


def _footer(room: MemoryLimit) -> str:
    return (
        f"\nneeds: with {AMPLE_CONTEXT_TOKENS:,} tokens of context."
        f" pensieve may use {in_bytes(room.limit_bytes)} here.\n"
        "pensieve show NAME tells more; pull NAME fetches it; use NAME has it served."
    )
