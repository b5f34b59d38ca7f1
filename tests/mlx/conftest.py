"""Fixtures of the tests that run real MLX models."""

from pathlib import Path

import pytest

from tests.support import tiny_models
from tests.support.device import use_device

use_device()


@pytest.fixture(scope="session", params=["llama", "phi3", "phi3-longrope", "qwen3"])
def tiny_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model of each architecture, as an mlx-lm folder."""
    return tiny_models.build(request.param, tmp_path_factory.mktemp(request.param))
