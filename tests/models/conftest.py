from pathlib import Path

import pytest

from pensieve.models.folder.snapshot import ModelFolder
from tests.support import tiny_models
from tests.support.embedded_model import embedded_model_folder


@pytest.fixture(scope="session", params=tiny_models.KINDS)
def tiny_model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ModelFolder:
    """A tiny model of each kind. Shared: copy it before changing it."""
    return tiny_models.folder_of(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def tiny_phi3(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_models.folder_of("phi3", tmp_path_factory.mktemp("phi3"))


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_models.folder_of("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """The real embedded model, imported once per run."""
    return embedded_model_folder(tmp_path_factory.mktemp("embedded"))


@pytest.fixture
def own_copy(tiny_phi3: ModelFolder, tmp_path: Path) -> ModelFolder:
    """A Phi-3-shaped model that the test may damage."""
    folder = tmp_path / "a model"
    folder.mkdir()
    for file in tiny_phi3.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return ModelFolder(tiny_phi3.name, tiny_phi3.repo, folder)
