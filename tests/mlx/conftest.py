import os
from pathlib import Path

import mlx.core as mx
import pytest

from tests import tiny_models

# For a Mac in a virtual machine, where Metal may be missing.
if os.environ.get("PENSIEVE_TEST_DEVICE") == "cpu":
    mx.set_default_device(mx.cpu)


@pytest.fixture(scope="session", params=["llama", "phi3", "phi3-longrope", "qwen3"])
def tiny_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model of each architecture, as an mlx-lm folder."""
    return tiny_models.build(request.param, tmp_path_factory.mktemp(request.param))
