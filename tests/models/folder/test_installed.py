"""Models on this machine: listed by their markers, removed completely."""

from pathlib import Path

import pytest

from pensieve.models.catalog.sources import CATALOG, HubModel
from pensieve.models.folder.installed import (
    InstalledModel,
    installed_model,
    installed_models,
    remove,
)
from pensieve.models.folder.snapshot import MARKER, ModelFile, Snapshot, folder_of, write_snapshot

OTHERS = (
    HubModel("owner/name", "owner/name"),
    HubModel("owner/name@refs/pr/1", "owner/name", "refs/pr/1"),
)


def put(models: Path, source: HubModel, after: str = "") -> Path:
    folder = folder_of(source, models)
    folder = folder.with_name(folder.name + after)
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    write_snapshot(Snapshot(source.repo, "f" * 40, (ModelFile("config.json", 2),)), folder / MARKER)
    return folder


def others_of(models: Path) -> list[InstalledModel]:
    return [model for model in installed_models(models) if model.source not in CATALOG]


def test_an_empty_home_lists_the_catalog(tmp_path: Path) -> None:
    models = installed_models(tmp_path / "models")
    assert tuple(model.source for model in models) == CATALOG
    assert not any(model.is_here or model.size_bytes or model.partial_bytes for model in models)


def test_a_fetched_model_is_listed_by_its_name(tmp_path: Path) -> None:
    for source in OTHERS:
        put(tmp_path, source)
    others = others_of(tmp_path)
    assert tuple(model.source for model in others) == OTHERS
    assert all(model.is_here and model.size_bytes > 2 for model in others)


def test_an_unfinished_fetch_is_listed_as_such(tmp_path: Path) -> None:
    put(tmp_path, OTHERS[0], ".partial")
    (found,) = others_of(tmp_path)
    assert found.source == OTHERS[0]
    assert not found.is_here
    assert found.partial_bytes > 2


@pytest.mark.parametrize(
    "marker", [b"", b"{}", b'{"repo": "someone/else", "revision": "1", "files": []}']
)
def test_foreign_folders_are_ignored(tmp_path: Path, marker: bytes) -> None:
    folder = tmp_path / "owner--name"
    folder.mkdir()
    (folder / MARKER).write_bytes(marker)
    assert others_of(tmp_path) == []


def test_remove_deletes_the_model_and_its_partial_folder_only(tmp_path: Path) -> None:
    other = put(tmp_path, OTHERS[1])
    gone = put(tmp_path, OTHERS[0]), put(tmp_path, OTHERS[0], ".partial")
    remove(installed_model(OTHERS[0], tmp_path))
    assert not any(folder.exists() for folder in gone)
    assert other.exists()
