"""List and remove the models on this machine. Reads markers and sizes; opens no model."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pensieve.models.catalog.sources import CATALOG, EmbeddedModel, HubModel
from pensieve.models.folder.snapshot import MARKER, PARTIAL, folder_of, locked, read_snapshot


@dataclass(frozen=True, slots=True)
class InstalledModel:
    source: HubModel | EmbeddedModel
    folder: Path  # where it is or would be
    is_here: bool  # completely fetched
    size_bytes: int = 0
    partial_bytes: int = 0  # of an unfinished fetch


def installed_models(models: Path) -> list[InstalledModel]:
    """Return the catalog, then other models fetched into `models`, by name."""
    catalog = {folder_of(model, models): model for model in CATALOG}
    fetched = {folder: source for folder in _folders(models) if (source := _source_of(folder))}
    others = sorted((fetched.keys() - catalog.keys()), key=lambda folder: fetched[folder].name)
    return [
        installed_model(source, models)
        for source in (*CATALOG, *(fetched[folder] for folder in others))
    ]


def installed_model(source: HubModel | EmbeddedModel, models: Path) -> InstalledModel:
    folder = folder_of(source, models)
    is_here = read_snapshot(folder / MARKER) is not None
    return InstalledModel(source, folder, is_here, bytes_of(folder), bytes_of(_partial(folder)))


def remove(model: InstalledModel) -> None:
    """Delete the model and the files of an unfinished fetch. Raises OSError."""
    with locked(model.folder):
        for folder in (model.folder, _partial(model.folder)):
            if folder.exists():
                shutil.rmtree(folder)


def bytes_of(folder: Path) -> int:
    """Return the size of a folder's files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _folders(models: Path) -> list[Path]:
    """Return the paths of complete and unfinished models, the latter without their suffix."""
    return [
        entry.with_name(entry.name.removesuffix(PARTIAL))
        for entry in sorted(models.glob("*--*"))
        if entry.is_dir() and not entry.name.startswith(".")
    ]


def _source_of(folder: Path) -> HubModel | None:
    """Return the source of this folder, the inverse of `folder_of`; None if its marker does not
    match.
    """
    snapshot = read_snapshot(folder / MARKER) or read_snapshot(_partial(folder) / MARKER)
    if snapshot is None:
        return None
    stem = snapshot.repo.replace("/", "--")
    if folder.name == stem:
        return HubModel(name=snapshot.repo, repo=snapshot.repo)
    if not folder.name.startswith(f"{stem}@"):
        return None
    revision = folder.name.removeprefix(f"{stem}@").replace("--", "/")
    return HubModel(f"{snapshot.repo}@{revision}", snapshot.repo, revision)


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + PARTIAL)
