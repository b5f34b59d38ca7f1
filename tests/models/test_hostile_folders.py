"""S13: a model folder that brings pickles and code along runs none of it, in the front end and in the engine."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pensieve.dialects.sampling import NEUTRAL
from pensieve.errors import ModelUnsupportedError
from pensieve.models.folder import ModelFolder
from pensieve.models.load import open_model

ROOT = Path(__file__).parents[2]
WORKER = (
    "import sys; from pathlib import Path; from pensieve.engine.weights import load_weights;"
    "load_weights(Path(sys.argv[1]), 'cpu'); print('loaded')"
)


class Planted:
    """Its pickle makes the canary when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def canary(own_copy: ModelFolder, tmp_path: Path) -> Path:
    """Does not exist; made by whatever of the folder's code or pickles is run."""
    canary = tmp_path / "canary"
    code = f"import os\nos.mkdir({str(canary)!r})\n"
    for name in (
        "modeling_phi3.py",
        "configuration_phi3.py",
        "tokenization_phi3.py",
        "__init__.py",
    ):
        (own_copy.folder / name).write_text(code, encoding="utf-8")
    for name in (
        "pytorch_model.bin",
        "model.pt",
        "model.pkl",
        "training_args.bin",
        "optimizer.pth",
    ):
        (own_copy.folder / name).write_bytes(pickle.dumps(Planted(canary)))
    auto_map = {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
        "AutoTokenizer": ["tokenization_phi3.Phi3Tokenizer", None],
    }
    for name in ("config.json", "tokenizer_config.json"):
        file = own_copy.folder / name
        file.write_text(json.dumps(json.loads(file.read_bytes()) | {"auto_map": auto_map}))
    return canary


def loaded_by_the_engine(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", WORKER, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_canary_is_made_by_who_reads_the_pickle(canary: Path, own_copy: ModelFolder) -> None:
    pickle.loads((own_copy.folder / "model.pkl").read_bytes())
    assert canary.exists()


def test_a_folder_with_code_and_pickles_loads_and_runs_none_of_it(
    canary: Path, own_copy: ModelFolder
) -> None:
    assert open_model(own_copy).context_tokens == 131072
    done = loaded_by_the_engine(own_copy.folder)
    assert done.stdout == "loaded\n", done.stderr
    assert not canary.exists()


def test_a_folder_that_only_its_code_could_load_is_refused(
    canary: Path, own_copy: ModelFolder
) -> None:
    file = own_copy.folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"model_file": "modeling_phi3.py"}))
    with pytest.raises(ModelUnsupportedError, match="Python code") as refused:
        open_model(own_copy)
    assert "pensieve models" in (refused.value.hint or "")
    assert loaded_by_the_engine(own_copy.folder).returncode != 0
    assert not canary.exists()


def test_a_generation_config_that_is_none_keeps_neither_process_from_loading(
    own_copy: ModelFolder,
) -> None:
    """mlx-lm alone fails at a list, and waits at a pipe for ever."""
    file = own_copy.folder / "generation_config.json"
    os.mkfifo(file)
    assert open_model(own_copy).dialect.sampling == NEUTRAL
    assert loaded_by_the_engine(own_copy.folder).stdout == "loaded\n"


def test_pickles_alone_are_no_weights(canary: Path, own_copy: ModelFolder) -> None:
    (own_copy.folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnsupportedError, match="has its weights in pickles"):
        open_model(own_copy)
    assert loaded_by_the_engine(own_copy.folder).returncode != 0
    assert not canary.exists()
