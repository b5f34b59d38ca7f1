"""Where the MTP head of a model is found."""

import json
import os
from pathlib import Path

import pytest

from pensieve.engine.planning.mtp_files import (
    config_of,
    head_folder_of,
    head_tensor,
    is_named_for,
    model_named_by,
)

HEAD = {"model_type": "qwen3_5_mtp"}


@pytest.mark.parametrize(
    ("head", "model", "fits"),
    [
        ("Qwen3.8-27B-MTP-4bit", "Qwen3.8-27B-4bit", True),
        ("Qwen3.8-27B-MTP-4bit", "Qwen3.8-27B-8bit", True),
        ("Qwen3.8-27B-MTP-4bit", "qwen3.8-27b", True),
        ("Qwen3.5-4B-mtp", "Qwen3.5-4B-MLX-4bit", True),
        ("Qwen3.5-4B_MTP", "Qwen3.5-4B_4bit", True),
        ("Qwen3.8-27B-MTP-4bit", "Qwen3.6-27B-4bit", False),
        ("Qwen3.8-2-MTP-4bit", "Qwen3.8-27B-4bit", False),
        ("Qwen3.8-27B-4bit", "Qwen3.8-27B-4bit", False),
        ("Qwen3.8-27B-MTPLX", "Qwen3.8-27B-4bit", False),
        ("MTP-4bit", "4bit", False),
    ],
)
def test_head_is_for_models_that_are_named_alike(head: str, model: str, fits: bool) -> None:
    assert is_named_for(head, model) is fits


def test_model_is_named_like_its_head_without_its_mark() -> None:
    assert model_named_by("acme/Qwen3.8-27B-MTP-4bit") == "acme/Qwen3.8-27B-4bit"
    assert model_named_by("Qwen3.5-4B-mtp") == "Qwen3.5-4B"
    assert model_named_by("acme/other") == "acme/other"


@pytest.mark.parametrize(
    ("tensor", "own"),
    [
        ("mtp.fc.weight", "fc.weight"),
        ("language_model.mtp.layers.0.mlp.gate.weight", "layers.0.mlp.gate.weight"),
        ("model.layers.0.mlp.gate.weight", ""),
        ("model.xmtp.fc.weight", ""),
        ("fc.weight", ""),
    ],
)
def test_heads_tensors_have_names_of_their_own(tensor: str, own: str) -> None:
    assert head_tensor(tensor) == own


def folder(parent: Path, name: str, config: object = HEAD) -> Path:
    made = parent / name
    made.mkdir()
    (made / "config.json").write_text(json.dumps(config))
    return made


@pytest.mark.parametrize(
    "name", ["acme--Qwen3.8-27B-4bit", "acme--Qwen3.8-27B-8bit@refs--pr--1", "Qwen3.8-27B-4bit"]
)
def test_head_stands_next_to_its_model(tmp_path: Path, name: str) -> None:
    model = folder(tmp_path, name, {"model_type": "qwen3_5"})
    assert head_folder_of(model) is None
    # A whole model can be named like a head; unfinished downloads are none.
    folder(tmp_path, "acme--Qwen3.8-27B-MTP-2bit", {"model_type": "qwen3_5"})
    folder(tmp_path, "acme--Qwen3.8-27B-MTP-3bit.partial")
    folder(tmp_path, "acme--Qwen3.6-27B-MTP-4bit")
    (tmp_path / "acme--Qwen3.8-27B-MTP-1bit").write_text("no folder")
    assert head_folder_of(model) is None
    last = folder(tmp_path, "other--Qwen3.8-27B-MTP-bf16")
    assert head_folder_of(model) == last
    first = folder(tmp_path, "acme--Qwen3.8-27B-MTP-4bit")
    assert head_folder_of(model) == first


def test_head_of_another_user_is_not_found(tmp_path: Path) -> None:
    model = folder(tmp_path, "Qwen3.8-27B-4bit", {"model_type": "qwen3_5"})
    head = folder(tmp_path, "Qwen3.8-27B-MTP-4bit")
    assert head_folder_of(model) == head
    if os.geteuid() == 0:
        os.chown(head, 12345, 12345)
        assert head_folder_of(model) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_config_that_cannot_be_read_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert config_of(tmp_path) == {}


def test_pipe_or_folder_in_place_of_a_config_is_empty(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert config_of(tmp_path) == {}
    assert config_of(tmp_path / "none") == {}
