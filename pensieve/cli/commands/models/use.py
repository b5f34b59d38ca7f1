"""`pensieve use`: writes into the configuration file which model `start` serves."""

from json import dumps

from pensieve.cli.ui import output
from pensieve.daemon.server_record import current
from pensieve.models.catalog.find import find
from pensieve.models.catalog.sources import AUTOMATIC_WORDS, LocalModel
from pensieve.models.fetching.fetch import check_here
from pensieve.models.folder.snapshot import is_present
from pensieve.settings import config_file
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings


def use(name: str, /, *, json: bool = False) -> int:
    """Have a model served from the next start on.

    For example:
      pensieve use qwen3.5-9b
      pensieve use auto                      # the best agent for this machine
      pensieve use auto:fast                 # the best of the quick ones

    It is kept in the configuration file: pensieve config path.

    Parameters
    ----------
    name
        A name that `pensieve models` lists, a Hugging Face repository (owner/name), a
        folder, auto or auto:fast.
    json
        Print one JSON object instead.
    """
    settings = settings_module.resolve()
    source = find(name)
    check_here(source, settings.paths)
    kept = str(source.folder) if isinstance(source, LocalModel) else source.name
    config_file.write(
        settings.paths.config_file, "model", name if name in AUTOMATIC_WORDS else kept
    )
    is_here = is_present(source, settings.paths.models)
    told = {
        "model": source.name,
        "is_here": is_here,
        "config_file": str(settings.paths.config_file),
        "is_overruled": settings.origins.get("model") == "environment",
    }
    output.data(
        dumps(told, indent=2) if json else f"{source.name} is served from the next start on."
    )
    if settings.origins.get("model") == "environment":
        output.warning(
            "PENSIEVE_MODEL is set and comes before it. Take it away: unset PENSIEVE_MODEL"
        )
    if not json and (steps := _next_steps(settings, source.name, is_here=is_here)):
        output.note("\n".join(steps))
    return 0


def _next_steps(settings: Settings, name: str, *, is_here: bool) -> list[str]:
    steps = (
        []
        if is_here
        else [f"It is not here yet. Fetch it now, or at that start:\n  pensieve pull {name}"]
    )
    record = current(settings.paths)
    if record and record.model != name:
        steps.append(
            f"Until then {record.model} goes on being served. To change now:\n  pensieve restart"
        )
    return steps
