"""Predict a model's context and thinking on this machine before it is loaded or even fetched.

Used by commands and doctor.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pensieve.engine.planning.memory_plan import GB
from pensieve.engine.planning.tower_files import ACTIVATIONS_BYTES, ROWS_BYTES, sight_bytes
from pensieve.errors import MachineError, ModelError, ModelUnavailableError
from pensieve.machine import Machine, inspect
from pensieve.models.catalog.cards import card_of
from pensieve.models.catalog.find import find
from pensieve.models.catalog.memory_fit import FitEstimate, estimate_fit, memory_limit_here
from pensieve.models.catalog.sources import ModelSource
from pensieve.models.folder.config_shape import ModelShape, shape_of
from pensieve.models.folder.snapshot import ModelFolder, folder_of, is_present
from pensieve.models.served_model import Thinking
from pensieve.settings.resolve import Settings


def planned_context(settings: Settings) -> int:
    """Return the context in tokens that the settings' model gets on this machine. Raises
    `ModelError` if unknown.
    """
    shape = shape_by_name(settings)
    machine = inspect()
    if not machine.memory_bytes:
        return shape.context_tokens
    return estimate_fit(shape, memory_limit_here(machine, settings)).context_tokens


def context_on_mac(
    folder: Path, settings: Settings, inspect: Callable[[], Machine] = inspect
) -> int | None:
    """Return the context in tokens that the model in `folder` gets on this Mac's GPU; None if
    only the engine can determine it.
    """
    fit = fit_on_mac(folder, settings, inspect())
    return (fit and fit.context_tokens) or None


def fit_on_mac(folder: Path, settings: Settings, machine: Machine) -> FitEstimate | None:
    """Return how the model in `folder` fits this Mac's GPU; None if only the engine can determine
    it.
    """
    if machine.kind != "apple_silicon" or settings.device == "cpu":
        return None
    with suppress(ModelError):
        return estimate_fit(_seeing_shape(folder, settings), memory_limit_here(machine, settings))
    return None


def require_room_for_workers(folder: Path, settings: Settings, machine: Machine) -> None:
    """Raise `MachineError` if the model in `folder` does not fit each worker's part of this Mac."""
    fit = fit_on_mac(folder, settings, machine)
    if settings.workers == 1 or fit is None or fit.context_tokens:
        return
    limit = memory_limit_here(machine, settings).limit_bytes
    fewer = range(settings.workers - 1, 0, -1)
    plans = ((each, fit_on_mac(folder, replace(settings, workers=each), machine)) for each in fewer)
    most = next((each for each, plan in plans if plan and plan.context_tokens), None)
    raise MachineError(
        f"Each of {settings.workers} workers may use {limit / GB:.1f} GB of this Mac's memory, and"
        f" the model needs {fit.needs_bytes / GB:.1f} GB.",
        hint=f"Start fewer:\n  pensieve start --workers {most}"
        if most
        else "See which models fit:\n  pensieve models",
    )


def planned_thinking(settings: Settings) -> Thinking:
    """Return how the settings' model thinks; "none" if it is not fetched. Raises `ModelError`."""
    source = find(settings.model)
    if not is_present(source, settings.paths.models):
        return "none"
    # Imports Jinja, which `pensieve env` does not need without a template.
    from pensieve.models.folder.thinking import thinking_in_folder

    folder = folder_of(source, settings.paths.models)
    return thinking_in_folder(ModelFolder(source.name, source.name, folder)).kind


def shape_by_name(settings: Settings) -> ModelShape:
    """Return the shape of the settings' model. Raises like `shape_by_source`."""
    return shape_by_source(find(settings.model), settings)


def shape_by_source(source: ModelSource, settings: Settings) -> ModelShape:
    """Return a model's shape from its files, else from the catalog. Raises
    `ModelUnavailableError`.
    """
    if is_present(source, settings.paths.models):
        return _seeing_shape(folder_of(source, settings.paths.models), settings)
    if card := card_of(source):
        # Those with unloaded parts are the ones with a tower.
        tower_bytes = card.shape.unloaded_bytes
        for_pictures = tower_bytes and tower_bytes + ROWS_BYTES + ACTIVATIONS_BYTES
        return _with_sight(card.shape, for_pictures, settings)
    raise ModelUnavailableError(
        f"{source.name} is not on this machine yet, so its shape is not known.",
        hint=f"Fetch it first:\n  pensieve pull {source.name}",
    )


def _seeing_shape(folder: Path, settings: Settings) -> ModelShape:
    return _with_sight(shape_of(folder), sight_bytes(folder), settings)


def _with_sight(shape: ModelShape, for_pictures: int, settings: Settings) -> ModelShape:
    # Several machines that share one model have no tower.
    is_on = settings.pictures != "off" and not settings.hostfile
    return replace(shape, sight_bytes=for_pictures if is_on else 0)
