"""`pensieve rm`: removes a model's files from this machine after confirmation."""

from json import dumps
from typing import Annotated

from cyclopts import Parameter

from pensieve.cli.model_facts import is_served, source_of
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import in_bytes
from pensieve.daemon.server_record import require
from pensieve.errors import ModelError, NotWritableError
from pensieve.models.folder.installed import InstalledModel, installed_model, remove
from pensieve.settings import resolve as settings_module


def rm(
    name: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name=("--yes", "-y"))] = False,
    json: bool = False,
) -> int:
    """Remove a model's files from this machine.

    For example:
      pensieve rm qwen3-4b
      pensieve rm qwen3-4b -y                # without confirmation

    Parameters
    ----------
    name
        The model, as `pensieve models` lists it.
    yes
        Remove without confirmation.
    json
        Print one JSON object when it is done.
    """
    settings = settings_module.resolve()
    model = installed_model(source_of(name), settings.paths.models)
    freed_bytes = model.size_bytes + model.partial_bytes
    require(settings.paths)  # without a record it is unknown which model is served
    if is_served(model, settings):
        raise ModelError(
            f"{model.source.name} is being served.",
            hint=f"Stop the server first:\n  pensieve stop && pensieve rm {model.source.name}",
        )
    is_removed = bool(freed_bytes) and (yes or _confirm(model, freed_bytes))
    if is_removed:
        _remove(model)
    result = {"name": model.source.name, "is_removed": is_removed, "bytes": freed_bytes}
    output.data(
        dumps(result, indent=2) if json else _message(model, freed_bytes, is_removed=is_removed)
    )
    return 0


def _confirm(model: InstalledModel, freed_bytes: int) -> bool:
    name = model.source.name
    return output.confirm(
        f"Remove {name} ({in_bytes(freed_bytes)}, {model.folder})?",
        command=f"pensieve rm {name} -y",
    )


def _remove(model: InstalledModel) -> None:
    try:
        remove(model)
    except OSError as error:
        raise NotWritableError(
            f"{model.folder} cannot be removed: {error.strerror or error}."
        ) from error


def _message(model: InstalledModel, freed_bytes: int, *, is_removed: bool) -> str:
    if is_removed:
        return f"{model.source.name} is removed; {in_bytes(freed_bytes)} freed."
    return (
        f"{model.source.name} is not removed."
        if freed_bytes
        else f"{model.source.name} is not on this machine."
    )
