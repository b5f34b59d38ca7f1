"""The models that lie on this machine, and taking one away. Reads markers and sizes; opens no model."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pensieve.models.catalog.sources import CATALOG, EmbeddedModel, HubModel
from pensieve.models.folder.snapshot import MARKER, PARTIAL, folder_of, locked, read_snapshot


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model and where it lies or would lie. is_here: whole. partial_bytes: what an unfinished fetch has left."""

    source: HubModel | EmbeddedModel
    folder: Path
    is_here: bool
    size_bytes: int = 0
    partial_bytes: int = 0


def installed_models(models: Path) -> list[InstalledModel]:
    """The catalog, then what else was fetched into `models`, by name."""
    listed = {folder_of(model, models): model for model in CATALOG}
    found = {folder: source for folder in _folders(models) if (source := _source_of(folder))}
    others = sorted((found.keys() - listed.keys()), key=lambda folder: found[folder].name)
    return [
        installed_model(source, models)
        for source in (*CATALOG, *(found[folder] for folder in others))
    ]


def installed_model(source: HubModel | EmbeddedModel, models: Path) -> InstalledModel:
    """What of `source` lies under `models`."""
    folder = folder_of(source, models)
    is_here = read_snapshot(folder / MARKER) is not None
    return InstalledModel(source, folder, is_here, bytes_of(folder), bytes_of(_partial(folder)))


def remove(model: InstalledModel) -> None:
    """Take the model away, and what an unfinished fetch left of it. Raises OSError."""
    with locked(model.folder):
        for folder in (model.folder, _partial(model.folder)):
            if folder.exists():
                shutil.rmtree(folder)


def bytes_of(folder: Path) -> int:
    """What the files of a model's folder take."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _folders(models: Path) -> list[Path]:
    """Complete and unfinished ones alike, by the complete one's path."""
    return [
        entry.with_name(entry.name.removesuffix(PARTIAL))
        for entry in sorted(models.glob("*--*"))
        if entry.is_dir() and not entry.name.startswith(".")
    ]


def _source_of(folder: Path) -> HubModel | None:
    """The source that lies in this folder (`folder_of` turned round); None where its marker is of another one."""
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
