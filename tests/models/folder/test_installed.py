"""What lies on this machine: found by its markers, taken away whole."""

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


def test_the_catalog_is_listed_where_nothing_was_fetched_yet(tmp_path: Path) -> None:
    models = installed_models(tmp_path / "models")
    assert tuple(model.source for model in models) == CATALOG
    assert not any(model.is_here or model.size_bytes or model.partial_bytes for model in models)


def test_what_was_fetched_is_found_under_the_name_that_fetched_it(tmp_path: Path) -> None:
    for source in OTHERS:
        put(tmp_path, source)
    found = others_of(tmp_path)
    assert tuple(model.source for model in found) == OTHERS
    assert all(model.is_here and model.size_bytes > 2 for model in found)


def test_what_is_half_fetched_is_told_as_such(tmp_path: Path) -> None:
    put(tmp_path, OTHERS[0], ".partial")
    (found,) = others_of(tmp_path)
    assert found.source == OTHERS[0]
    assert not found.is_here
    assert found.partial_bytes > 2


@pytest.mark.parametrize(
    "marker", [b"", b"{}", b'{"repo": "someone/else", "revision": "1", "files": []}']
)
def test_a_folder_that_is_not_ours_is_passed_by(tmp_path: Path, marker: bytes) -> None:
    folder = tmp_path / "owner--name"
    folder.mkdir()
    (folder / MARKER).write_bytes(marker)
    assert others_of(tmp_path) == []


def test_a_model_is_taken_away_with_what_a_fetch_left_of_it_and_no_other(tmp_path: Path) -> None:
    kept = put(tmp_path, OTHERS[1])
    gone = put(tmp_path, OTHERS[0]), put(tmp_path, OTHERS[0], ".partial")
    remove(installed_model(OTHERS[0], tmp_path))
    assert not any(folder.exists() for folder in gone)
    assert kept.exists()
