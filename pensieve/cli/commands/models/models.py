"""`pensieve models`: lists models with their size and the context each gets on this machine."""

from dataclasses import replace
from json import dumps

from pensieve.cli.client.target import served_name
from pensieve.cli.lifecycle.model_suggestion import suggestion
from pensieve.cli.model_facts import model_entry, row
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import in_bytes
from pensieve.engine.planning.memory_plan import AMPLE_CONTEXT_TOKENS
from pensieve.machine import inspect
from pensieve.models.catalog.memory_fit import MemoryLimit, memory_limit_here
from pensieve.models.folder.installed import installed_models
from pensieve.settings import resolve as settings_module

COLUMNS = f"  {'':<20} {'size':>8} {'needs':>9} {'context here':>13}"


def models(*, json: bool = False) -> int:
    """List recommended models and those on this machine.

    For example:
      pensieve models
      pensieve show qwen3.5-9b
      pensieve pull qwen3.5-9b && pensieve use qwen3.5-9b

    Other mlx-lm models work too, by their Hugging Face name: owner/name.

    Parameters
    ----------
    json
        Print one JSON object instead.
    """
    settings = settings_module.resolve()
    machine = inspect()
    limit = memory_limit_here(machine, settings)
    with_name = replace(settings, model=served_name(settings.model))
    entries = [
        model_entry(model, limit, with_name) for model in installed_models(settings.paths.models)
    ]
    if json:
        output.data(dumps({"limit_bytes": limit.limit_bytes, "models": entries}, indent=2))
        return 0
    output.data("\n".join([COLUMNS, *map(row, entries)]))
    output.hint(_footer(limit))
    if output.is_interactive() and (text := suggestion(settings, machine)):
        output.note(f"\n{text}")
    return 0


def _footer(limit: MemoryLimit) -> str:
    return (
        f"\nneeds: memory with {AMPLE_CONTEXT_TOKENS:,} tokens of context."
        f" pensieve may use {in_bytes(limit.limit_bytes)} here.\n"
        "More: pensieve show NAME. Download: pull NAME. Set as default: use NAME."
    )
