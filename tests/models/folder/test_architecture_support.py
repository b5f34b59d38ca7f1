"""Unsupported models raise one sentence: for a folder at once, for the Hub before the weights."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pensieve.errors import ModelUnsupportedError
from pensieve.models.catalog.sources import HubModel, LocalModel
from pensieve.models.fetching.download import Download
from pensieve.models.fetching.fetch import fetch
from pensieve.models.fetching.hub import Hub
from pensieve.models.folder.architecture_support import MlxLm, check_config, installed_mlx_lm
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.paths import under_home
from tests.models.recorded_progress import RecordedProgress
from tests.support.fake_hub import FakeHub, files_of, serving

REPO = "mlx-community/tiny-phi3"
WEIGHTS = "model.safetensors"
MLX_LM = installed_mlx_lm()

# Changes to a loadable model's config, and the error's text after the model's name.
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown architecture": (
        {"model_type": "qwen9_super"},
        " is of the type qwen9_super, which mlx-lm 0.32.2 does not load.",
    ),
    "a module that is no architecture": (
        {"model_type": "cache"},
        " is of the type cache, which mlx-lm 0.32.2 does not load.",
    ),
    "an architecture that wants a package of its own": (
        {"model_type": "olmo"},
        " is of the type olmo, which mlx-lm 0.32.2 does not load.",
    ),
    "a path": (
        {"model_type": "../models/llama"},
        " is of the type ../models/llama, which mlx-lm 0.32.2 does not load.",
    ),
    "a draft by its type": (
        {"model_type": "deepseek_v4_mtp"},
        " is a draft, which makes another model faster and writes nothing by itself.",
    ),
    "a draft by its type alone": (
        {"model_type": "dflash"},
        " is a draft, which makes another model faster and writes nothing by itself.",
    ),
    "a draft by its class": (
        {"architectures": ["DFlashDraftModel"]},
        " is a draft, which makes another model faster and writes nothing by itself.",
    ),
    "a classifier": (
        {"architectures": ["Phi3ForSequenceClassification"]},
        " is made for another task than to write text (Phi3ForSequenceClassification).",
    ),
    "AWQ": (
        {"quantization_config": {"quant_method": "awq", "bits": 4}},
        " is quantized by awq, which mlx-lm 0.32.2 does not read.",
    ),
    "GPTQ of the inner model": (
        {"text_config": {"quantization_config": {"quant_method": "gptq", "bits": 4}}},
        " is quantized by gptq, which mlx-lm 0.32.2 does not read.",
    ),
    "a mode of another MLX": (
        {"quantization": {"mode": "fp3", "bits": 3, "group_size": 32}},
        " is quantized by fp3, which mlx-lm 0.32.2 does not read.",
    ),
    "fp8 of an architecture that does not expand it": (
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
        " is quantized by fp8, which mlx-lm 0.32.2 does not read.",
    ),
    "a compressed format": (
        {"quantization_config": {"quant_method": "compressed-tensors", "format": "int-quantized"}},
        " is quantized by compressed-tensors, which mlx-lm 0.32.2 does not read.",
    ),
}
# A repository's files, and the error's text.
LISTS: dict[str, tuple[tuple[str, ...], str]] = {
    "an adapter": (
        ("adapter_config.json", "adapters.safetensors"),
        " is an adapter (LoRA), not the model that it changes.",
    ),
    "GGUF": (
        ("config.json", "model-Q4_K_M.gguf"),
        " has its weights in GGUF files, which pensieve does not read.",
    ),
    "pickles": (
        ("config.json", "pytorch_model.bin"),
        " has its weights in pickles, which pensieve does not read.",
    ),
    "an embedding model": (
        ("config.json", "modules.json", WEIGHTS),
        " turns text into embeddings; it writes none.",
    ),
    "a diffusion pipeline": (
        ("model_index.json", WEIGHTS),
        " draws pictures; it writes no text.",
    ),
}


def config_of(model: ModelFolder, change: dict[str, Any]) -> dict[str, Any]:
    config = json.loads((model.folder / "config.json").read_bytes())
    return {key: value for key, value in config.items() if key != "quantization"} | change


@pytest.fixture
def hub(tiny_phi3: ModelFolder) -> Iterator[FakeHub]:
    with serving(FakeHub(REPO, files_of(tiny_phi3.folder))) as hub:
        yield hub


def refused(hub: FakeHub, models: Path) -> ModelUnsupportedError:
    download = Download(Hub(hub.endpoint), RecordedProgress())
    with pytest.raises(ModelUnsupportedError) as refusal:
        download.into(models / "tiny", HubModel("tiny", REPO))
    assert not list(models.glob("*")), "something of it is left"
    return refusal.value


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_unsupported_config_is_refused_before_other_files_are_fetched(
    hub: FakeHub, tiny_phi3: ModelFolder, tmp_path: Path, kind: str
) -> None:
    change, message = CONFIGS[kind]
    content = json.dumps(config_of(tiny_phi3, change)).encode()
    hub.files["config.json"] = content
    refusal = refused(hub, tmp_path)
    assert refusal.message == REPO + message
    assert "pensieve models" in (refusal.hint or "")
    assert hub.sent == {"config.json": len(content)}


@pytest.mark.parametrize("kind", LISTS)
def test_unsupported_file_names_are_refused_before_fetching(
    hub: FakeHub, tmp_path: Path, kind: str
) -> None:
    names, message = LISTS[kind]
    hub.files = {name: hub.files.get(name, b"{}") for name in names}
    assert refused(hub, tmp_path).message == REPO + message
    assert not hub.sent


@pytest.mark.parametrize("task", ["feature-extraction", "text-ranking", "text-to-image"])
def test_an_unsupported_task_is_refused_before_fetching(
    hub: FakeHub, tmp_path: Path, task: str
) -> None:
    hub.task = task
    message = f" is made for another task than to write text ({task})."
    assert refused(hub, tmp_path).message == REPO + message
    assert not hub.sent


def test_a_vision_model_is_supported(hub: FakeHub, tmp_path: Path) -> None:
    hub.task = "image-text-to-text"
    Download(Hub(hub.endpoint), RecordedProgress()).into(tmp_path / "tiny", HubModel("tiny", REPO))
    assert (tmp_path / "tiny" / "model.safetensors").exists()


def test_a_repository_without_a_config_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    del hub.files["config.json"]
    assert "has no config.json" in refused(hub, tmp_path).message
    assert not hub.sent


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_with_an_unsupported_config_raises_the_same_error(
    own_copy: ModelFolder, tmp_path: Path, kind: str
) -> None:
    change, message = CONFIGS[kind]
    (own_copy.folder / "config.json").write_text(json.dumps(config_of(own_copy, change)))
    with pytest.raises(ModelUnsupportedError) as refusal:
        fetch(LocalModel("it", own_copy.folder), under_home(tmp_path), RecordedProgress())
    assert refusal.value.message == str(own_copy.folder) + message
    assert refusal.value.exit_code == 65


@pytest.mark.parametrize("kind", LISTS)
def test_a_folder_with_unsupported_files_raises_the_same_error(tmp_path: Path, kind: str) -> None:
    names, message = LISTS[kind]
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelUnsupportedError) as refusal:
        fetch(LocalModel("it", tmp_path), under_home(tmp_path / "home"), RecordedProgress())
    assert refusal.value.message == str(tmp_path) + message


def test_a_gguf_file_is_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ModelUnsupportedError, match="GGUF files"):
        fetch(LocalModel("it", file), under_home(tmp_path), RecordedProgress())


@pytest.mark.parametrize(
    "change",
    [
        {"quantization": {"group_size": 64, "bits": 4}},
        {"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}},
        {"quantization": {"group_size": 16, "bits": 4, "mode": "nvfp4"}},
        {"quantization": {"group_size": 32, "bits": 8, "mode": "mxfp8"}},
        {"quantization_config": {"quant_method": "mxfp4"}},
        {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
        {
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
            }
        },
        {
            "quantization_config": {
                "quant_method": "fp8",
                "scale_fmt": "ue8m0",
                "weight_block_size": [32, 32],
            }
        },
        {"model_type": "deepseek_v3", "quantization_config": {"quant_method": "fp8"}},
        {"model_type": "kimi_k2"},
        {"quantization": True, "quantization_config": 3, "architectures": 4, "text_config": []},
        {"model_type": "solar_open"},
        {"model_type": "bailing_hybrid", "architectures": ["BailingMoeV3ForCausalLM"]},
        {"model_type": "qwen3_5", "architectures": ["Qwen3_5ForConditionalGeneration"]},
    ],
)
def test_supported_configs_are_accepted(tiny_phi3: ModelFolder, change: dict[str, Any]) -> None:
    assert MLX_LM is not None
    check_config("it", config_of(tiny_phi3, change), MLX_LM)


def test_without_mlx_lm_no_config_is_refused(tiny_phi3: ModelFolder) -> None:
    check_config("it", config_of(tiny_phi3, {"model_type": "qwen9_super"}), None)


def test_a_merged_model_with_its_adapter_is_supported(
    own_copy: ModelFolder, tmp_path: Path
) -> None:
    (own_copy.folder / "adapter_config.json").write_text("{}")
    source = LocalModel("it", own_copy.folder)
    assert fetch(source, under_home(tmp_path), RecordedProgress()).folder == own_copy.folder


def test_a_type_is_resolved_like_in_mlx_lm(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base.py").write_text("from .x import Model, ModelArgs\n")
    mlx_lm = MlxLm(tmp_path, "1", {"other": "base"}, {("it", "ItForCausalLM"): "base"})
    assert mlx_lm.architecture({"model_type": "other"})
    assert mlx_lm.architecture({"model_type": "it", "architectures": "ItForCausalLM"})
    assert mlx_lm.architecture({"model_type": "it"}) is None
