"""A model's shape from its files: nested configs, states, windows and unloaded weights."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pensieve.engine.planning.attention_shape import shape_from
from pensieve.errors import MachineError, ModelDamagedError
from pensieve.machine import Machine
from pensieve.models.catalog.expected_model import context_on_mac, require_room_for_workers
from pensieve.models.folder.config_shape import shape_of
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings

FLAT = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "hidden_size": 512,
    "max_position_embeddings": 4096,
}


@pytest.mark.parametrize("name", ["text_config", "llm_config", "language_config"])
def test_nested_and_flat_configs_have_the_same_shape(name: str) -> None:
    nested = {"model_type": "outer", "vision_config": {"hidden_size": 9}, name: FLAT}
    assert shape_from(nested, 10) == shape_from(FLAT, 10)


def test_the_outer_config_fills_gaps_of_the_inner_one() -> None:
    inner = {key: value for key, value in FLAT.items() if key != "max_position_embeddings"}
    outer = {"max_position_embeddings": 4096, "quantization": {"bits": 8}, "text_config": inner}
    shape = shape_from(outer, 10)
    assert (shape.context_tokens, shape.bits, shape.head_dim) == (4096, 8, 64)


def test_sliding_windows_are_counted_once_and_other_layers_per_token() -> None:
    windowed = FLAT | {
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "num_hidden_layers": 3,
    }
    shape = shape_from(windowed, 10)
    assert shape.layers == 1
    assert shape.state_bytes == 2 * 128 * 2 * 2 * 64 * 2
    by_pattern = shape_from(FLAT | {"sliding_window": 128, "sliding_window_pattern": 4}, 10)
    assert (by_pattern.layers, by_pattern.state_bytes) == (1, 3 * 128 * 2 * 2 * 64 * 2)
    # A window without layers that use it does not count: Qwen's configs have an unused field.
    assert shape_from(FLAT | {"sliding_window": 128}, 10).state_bytes == 0


def test_a_constant_state_is_counted_once() -> None:
    """Qwen3.8-27B: 48 layers of 3 145 728 bytes of state and 61 440 of convolution."""
    config = FLAT | {
        "num_hidden_layers": 64,
        "full_attention_interval": 4,
        "linear_num_value_heads": 48,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    }
    shape = shape_from(config, 10)
    assert shape.layers == 16
    assert shape.state_bytes == 48 * (3_145_728 + 61_440)


def test_unknown_heads_are_overestimated() -> None:
    shape = shape_from(FLAT, 10)
    assert shape.facts().query_heads == 8
    assert shape.facts().token_values == 4 * 2 * 2 * 64


def safetensors(file: Path, tensors: dict[str, int]) -> None:
    """Write a file with tensors of these sizes."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    at = 0
    for name, nbytes in tensors.items():
        header[name] = {"dtype": "U8", "shape": [nbytes], "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


def test_vision_towers_and_draft_heads_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": FLAT}))
    safetensors(
        tmp_path / "model-1.safetensors",
        {"vision_tower.blocks.0.weight": 1000, "language_model.model.norm.weight": 10},
    )
    safetensors(
        tmp_path / "model-2.safetensors",
        {"model.visual.merger.bias": 200, "mtp.fc.weight": 30, "model.visualizer.weight": 4},
    )
    shape = shape_of(tmp_path)
    assert shape.unloaded_bytes == 1230
    files = tmp_path.glob("*.safetensors")
    assert shape.weights_bytes == sum(file.stat().st_size for file in files)
    assert shape.facts().weights_bytes == shape.weights_bytes - 1230


@pytest.mark.parametrize("has_own", [True, False])
def test_heads_that_the_engine_loads_count_as_weights(tmp_path: Path, has_own: bool) -> None:
    model, head = tmp_path / "Tiny-4bit", tmp_path / "Tiny-MTP-4bit"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(FLAT | {"model_type": "qwen3_5"}))
    own = {"mtp.fc.weight": 30} if has_own else {}
    safetensors(model / "model.safetensors", {"model.norm.weight": 10, **own})
    alone = shape_of(model)
    assert alone.unloaded_bytes == 0
    assert alone.weights == 10 + 30 * has_own
    head.mkdir()
    (head / "config.json").write_text(json.dumps({"model_type": "qwen3_5_mtp"}))
    safetensors(head / "model.safetensors", {"fc.weight": 50})
    both = shape_of(model)
    separate_bytes = 0 if has_own else (head / "model.safetensors").stat().st_size
    assert both.weights_bytes == alone.weights_bytes + separate_bytes
    assert both.weights == alone.weights + (0 if has_own else 50)


def test_the_context_on_a_mac_is_estimated_before_loading(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(FLAT))
    safetensors(tmp_path / "model.safetensors", {"model.norm.weight": 1000})
    mac = Machine("Darwin", "arm64", "3.14.0", macos="26.1", memory_bytes=8 << 30)
    settings = Settings(under_home(tmp_path))
    assert context_on_mac(tmp_path, settings, lambda: mac) == 4096
    assert context_on_mac(tmp_path, replace(settings, device="cpu"), lambda: mac) is None
    assert context_on_mac(tmp_path / "none", settings, lambda: mac) is None
    assert context_on_mac(tmp_path, replace(settings, memory_gb=1.0), lambda: mac) is None
    linux = Machine("Linux", "x86_64", "3.13.1", memory_bytes=8 << 30)
    assert context_on_mac(tmp_path, settings, lambda: linux) is None


def test_workers_that_the_model_does_not_fit_are_refused_with_the_number_that_it_fits(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(FLAT))
    safetensors(tmp_path / "model.safetensors", {"model.norm.weight": 1000})
    mac = Machine("Darwin", "arm64", "3.14.0", macos="26.1", memory_bytes=8 << 30)
    settings = Settings(under_home(tmp_path), memory_gb=4.0)
    require_room_for_workers(tmp_path, settings, mac)
    with pytest.raises(MachineError, match=r"Each of 4 workers may use 1\.0 GB") as refused:
        require_room_for_workers(tmp_path, replace(settings, workers=4), mac)
    assert refused.value.hint
    most = int(refused.value.hint.split()[-1])
    assert 1 <= most < 4
    require_room_for_workers(tmp_path, replace(settings, workers=most), mac)
    with pytest.raises(MachineError):
        require_room_for_workers(tmp_path, replace(settings, workers=most + 1), mac)
    # Only the engine can tell.
    require_room_for_workers(tmp_path, replace(settings, workers=4, device="cpu"), mac)


def test_weights_are_counted_by_group_without_unloaded_ones(
    tmp_path: Path,
) -> None:
    """A layer of 8 rows of 128 in 4 bits, another of 6 rows in groups of 32, a norm of 128, a
    tower.
    """
    shapes = {
        "model.up.weight": [8, 16],
        "model.up.scales": [8, 2],
        "model.up.biases": [8, 2],
        "model.down.weight": [6, 16],
        "model.down.scales": [6, 4],
        "model.norm.weight": [128],
        "vision_tower.up.weight": [512, 512],
    }
    header = {
        name: {"dtype": "U32", "shape": shape, "data_offsets": [0, 0]}
        for name, shape in shapes.items()
    }
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    quantization = {"group_size": 64, "bits": 4, "model.down": {"group_size": 32, "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(FLAT | {"quantization": quantization}))
    assert shape_of(tmp_path).weights == 8 * 128 + 6 * 128 + 128


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, struct.pack("<Q", 9) + b"no object"])
def test_weights_with_an_unreadable_header_count_fully(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_text(json.dumps(FLAT))
    (tmp_path / "model.safetensors").write_bytes(content)
    assert shape_of(tmp_path).unloaded_bytes == 0


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"text_config": {"num_attention_heads": 1}}'])
def test_a_config_without_a_shape_is_damaged(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelDamagedError, match="does not tell the model's shape"):
        shape_of(tmp_path)
