"""A hostile model folder: its code never runs, and it is served or refused with one sentence."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.dialects.sampling_defaults import NEUTRAL
from pensieve.engine.planning.attention_shape import NESTED_CONFIGS
from pensieve.errors import ModelError, ModelUnsupportedError
from pensieve.models.catalog.sources import LocalModel
from pensieve.models.fetching.fetch import check_here
from pensieve.models.folder.config_limits import implausible_field
from pensieve.models.folder.config_shape import shape_of
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.models.folder.thinking import thinking_in_folder
from pensieve.models.load import open_model
from pensieve.paths import under_home
from tests.models.hostile_folders import (
    BAD,
    BAD_AT_ONCE,
    HARMLESS,
    JSON_FILES,
    Spoil,
    changes,
    links,
    writes,
)

ROOT = Path(__file__).parents[3]
WORKER = (
    "import sys; from pathlib import Path; from pensieve.engine.model.loading import load_weights;"
    "load_weights(Path(sys.argv[1]), 'cpu'); print('loaded')"
)


class Planted:
    """Its pickle creates the canary when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def canary(own_copy: ModelFolder, tmp_path: Path) -> Path:
    """A path that exists only if the folder's code or pickles ran."""
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


def test_reading_the_pickle_creates_the_canary(canary: Path, own_copy: ModelFolder) -> None:
    pickle.loads((own_copy.folder / "model.pkl").read_bytes())
    assert canary.exists()


def test_a_folder_with_code_and_pickles_loads_without_running_them(
    canary: Path, own_copy: ModelFolder
) -> None:
    assert open_model(own_copy).context_tokens == 131072
    done = loaded_by_the_engine(own_copy.folder)
    assert done.stdout == "loaded\n", done.stderr
    assert not canary.exists()


def test_a_folder_that_needs_its_own_code_is_refused(canary: Path, own_copy: ModelFolder) -> None:
    file = own_copy.folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"model_file": "modeling_phi3.py"}))
    with pytest.raises(ModelUnsupportedError, match="Python code") as refused:
        open_model(own_copy)
    assert "pensieve models" in (refused.value.hint or "")
    assert loaded_by_the_engine(own_copy.folder).returncode != 0
    assert not canary.exists()


def test_an_invalid_generation_config_does_not_prevent_loading(
    own_copy: ModelFolder,
) -> None:
    """mlx-lm alone fails on a list, and waits forever on a pipe."""
    file = own_copy.folder / "generation_config.json"
    os.mkfifo(file)
    assert open_model(own_copy).dialect.sampling == NEUTRAL
    assert loaded_by_the_engine(own_copy.folder).stdout == "loaded\n"


def test_a_folder_with_only_pickles_is_refused(canary: Path, own_copy: ModelFolder) -> None:
    (own_copy.folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnsupportedError, match="has its weights in pickles"):
        open_model(own_copy)
    assert loaded_by_the_engine(own_copy.folder).returncode != 0
    assert not canary.exists()


def spoiled(spoil: Spoil, good: ModelFolder, folder: Path) -> ModelFolder:
    shutil.copytree(good.folder, folder)
    spoil(folder)
    return ModelFolder("hostile", "hostile", folder)


@pytest.mark.parametrize("case", BAD)
def test_an_unservable_folder_raises_one_sentence(
    case: str, tiny_phi3: ModelFolder, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as refused:
        open_model(spoiled(BAD[case], tiny_phi3, tmp_path / "model"))
    assert refused.value.exit_code == 65
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 500


@pytest.mark.parametrize("case", BAD_AT_ONCE)
def test_a_folder_without_a_model_is_refused_first(
    case: str, tiny_phi3: ModelFolder, tmp_path: Path
) -> None:
    """By the check with which every command that names a model begins."""
    folder = spoiled(BAD_AT_ONCE[case], tiny_phi3, tmp_path / "model").folder
    with pytest.raises(ModelError) as refused:
        check_here(LocalModel("hostile", folder), under_home(tmp_path))
    message = refused.value.message
    assert "\n" not in message
    assert len(message) < 500
    assert refused.value.exit_code == 65


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "rwkv7", "falcon_mamba"])
def test_heads_of_state_space_models_are_not_checked(kind: str) -> None:
    config = {"model_type": kind, "num_attention_heads": 0, "head_dim": None, "num_heads": 0}
    assert implausible_field({**config, "hidden_size": 768, "num_hidden_layers": 24}) is None


PUBLISHED: dict[str, dict[str, Any]] = {
    "layers of several sizes": {"num_key_value_heads": [4, 8], "intermediate_size": [0, 512]},
    "a dense model of a family with experts": {"num_experts": 0, "num_experts_per_tok": 8},
    "a number that was written as a float": {"head_dim": 128.0, "intermediate_size": 8192.0},
    "latent attention": {"hidden_size": 2048, "num_attention_heads": 20, "qk_rope_head_dim": 64},
    "heads of their own size": {"hidden_size": 2560, "num_attention_heads": 12, "head_dim": 128},
    "no window": {"sliding_window": None},
    "one key-value head": {"num_attention_heads": 71, "num_key_value_heads": 1, "head_dim": 64},
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_configs_are_plausible(case: str) -> None:
    assert implausible_field({"model_type": "llama", **PUBLISHED[case]}) is None


@pytest.mark.parametrize("case", HARMLESS)
def test_a_folder_without_optional_files_is_served(
    case: str, tiny_phi3: ModelFolder, tmp_path: Path
) -> None:
    served = open_model(spoiled(HARMLESS[case], tiny_phi3, tmp_path / "model"))
    assert served.tokenizer.encode("a")
    assert served.context_tokens > 0
    assert all(type(stop) is int and 0 <= stop < 2**31 for stop in served.stop_tokens)


@pytest.mark.parametrize("case", [*BAD, *HARMLESS])
def test_plans_for_a_hostile_folder_raise_only_model_damaged_error(
    case: str, tiny_phi3: ModelFolder, tmp_path: Path
) -> None:
    model = spoiled((BAD | HARMLESS)[case], tiny_phi3, tmp_path / "model")
    for look in (lambda: shape_of(model.folder), lambda: thinking_in_folder(model)):
        with suppress(ModelError):
            look()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=25)
@given(st.data())
def test_a_folder_with_any_field_value_is_served_or_refused(
    tiny_phi3: ModelFolder, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(JSON_FILES))
    stored = json.loads((tiny_phi3.folder / name).read_bytes())
    field = data.draw(st.sampled_from([*stored, *NESTED_CONFIGS, "chat_template", "eos_token_id"]))
    value = data.draw(json_values)
    with tempfile.TemporaryDirectory() as folder, suppress(ModelError):
        open_model(spoiled(changes(name, **{field: value}), tiny_phi3, Path(folder) / "model"))


def test_a_dangling_link_is_a_missing_file(own_copy: ModelFolder) -> None:
    links("config.json", "nowhere")(own_copy.folder)
    with pytest.raises(ModelError, match=r"config\.json .* is missing"):
        open_model(own_copy)


@pytest.mark.parametrize("stated", ["2", 2**64])
def test_invalid_end_tokens_do_not_stop_the_engine(stated: object, own_copy: ModelFolder) -> None:
    changes("config.json", eos_token_id=stated)(own_copy.folder)
    done = loaded_by_the_engine(own_copy.folder)
    assert done.stdout == "loaded\n", done.stderr


def test_git_lfs_pointers_are_reported(own_copy: ModelFolder) -> None:
    writes("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n")(own_copy.folder)
    with pytest.raises(ModelError, match="Git LFS pointer"):
        open_model(own_copy)
