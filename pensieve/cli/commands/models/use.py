"""`pensieve use`: writes the default model into the configuration file."""

from json import dumps

from pensieve.cli.ui import output
from pensieve.daemon.server_record import current, restart_command
from pensieve.models.catalog.find import find
from pensieve.models.catalog.sources import AUTO_NAMES, LocalModel
from pensieve.models.fetching.fetch import check_here
from pensieve.models.folder.snapshot import is_present
from pensieve.settings import config_file
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Flags, Settings


def use(name: str, /, *, json: bool = False) -> int:
    """Set the default model.

    For example:
      pensieve use qwen3.5-9b
      pensieve use auto                      # the best agent for this machine
      pensieve use auto:fast                 # the best of the fast ones

    The setting is stored in the configuration file: pensieve config path.

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
    model_name = str(source.folder) if isinstance(source, LocalModel) else source.name
    config_file.write(
        settings.paths.config_file, "model", name if name in AUTO_NAMES else model_name
    )
    is_here = is_present(source, settings.paths.models)
    result = {
        "model": source.name,
        "is_here": is_here,
        "config_file": str(settings.paths.config_file),
        "is_overruled": settings.origins.get("model") == "environment",
    }
    output.data(
        dumps(result, indent=2)
        if json
        else f"{source.name} is the default model from the next start."
    )
    if settings.origins.get("model") == "environment":
        output.warning("PENSIEVE_MODEL is set and overrides it. Remove it: unset PENSIEVE_MODEL")
    if not json and (steps := _next_steps(settings, source.name, is_here=is_here)):
        output.note("\n".join(steps))
    return 0


def _next_steps(settings: Settings, name: str, *, is_here: bool) -> list[str]:
    steps = (
        [] if is_here else [f"It is not downloaded yet. Download it now:\n  pensieve pull {name}"]
    )
    record = current(settings.paths)
    if record and record.model != name:
        # Its flag would override the new default.
        flags = Flags(model=name) if "model" in record.flags else None
        restart = restart_command(record, flags)
        steps.append(f"The server still runs {record.model}. Switch now:\n  {restart}")
    return steps
