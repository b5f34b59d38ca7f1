"""An invalid model folder ends `pensieve start` with one sentence and exit code 65.

The command, the server or the engine may detect it.
"""

import shutil
from pathlib import Path

import pytest

from pensieve.models.folder.snapshot import ModelFolder
from tests.e2e.installation import Installation
from tests.models.hostile_folders import BAD, Spoil, changes
from tests.support import tiny_models
from tests.support.ports import free_port

# Detected only when the weights are read.
OTHER_WEIGHTS = changes("config.json", intermediate_size=96)
CASES: dict[str, tuple[Spoil, str]] = {
    "num_attention_heads is 0": (BAD["num_attention_heads is 0"], "num_attention_heads"),
    "weights are a header alone": (BAD["weights are a header alone"], "holds no weights"),
    "six normalizers grow": (BAD["six normalizers grow"], "so much longer"),
    "weights of another shape": (OTHER_WEIGHTS, "The model does not load: "),
}


@pytest.fixture(scope="module")
def valid_model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_models.folder_of("llama", tmp_path_factory.mktemp("valid"))


@pytest.mark.parametrize("case", CASES)
def test_an_invalid_folder_is_refused_in_one_sentence(
    case: str, valid_model: ModelFolder, tmp_path: Path
) -> None:
    spoil, cause = CASES[case]
    folder = tmp_path / "model"
    shutil.copytree(valid_model.folder, folder)
    spoil(folder)
    installation = Installation(tmp_path / "home", free_port())
    done = installation.pensieve("start", "--model", str(folder), "--device", "cpu", check=False)
    assert done.returncode == 65, done.stderr
    assert done.stdout == ""
    assert done.stderr.count(cause) == 1
    assert sum(line.startswith("Error: ") for line in done.stderr.splitlines()) == 1
    assert "Internal error" not in done.stderr
    assert "Traceback" not in done.stderr
    assert installation.pensieve("status", check=False).returncode != 0
