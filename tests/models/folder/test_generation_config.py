"""Values from generation_config.json; no content of it prevents a model from opening."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pensieve.dialects.sampling_defaults import NEUTRAL, SamplingDefaults
from pensieve.models.folder.generation_config import NAME, read_generation_config
from pensieve.models.folder.model_files import MAX_BYTES
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.models.load import open_model
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings

QWEN = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "eos_token_id": [7, 8]}


def written(folder: Path, content: object) -> Path:
    (folder / NAME).write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (QWEN, SamplingDefaults(0.6, 0.95, 20)),
        ({"temperature": 1, "min_p": 0}, SamplingDefaults(1.0)),
        ({"repetition_penalty": 1.05, "min_p": 0.1}, SamplingDefaults(1, 1, 0, 0.1, 1.05)),
        ({"do_sample": False, "temperature": 0.6}, SamplingDefaults(0.0)),
        ({"do_sample": True}, NEUTRAL),
        ({"temperature": None, "do_sample": None, "num_beams": 4}, NEUTRAL),
        ({}, NEUTRAL),
    ],
)
def test_sampling_values_are_read(
    content: dict[str, object], expected: SamplingDefaults, tmp_path: Path
) -> None:
    config = read_generation_config(written(tmp_path, content))
    assert config.sampling == expected
    assert not config.problems


def test_each_field_has_the_origin_of_highest_precedence(tmp_path: Path) -> None:
    settings = Settings(under_home(tmp_path), top_k=40, min_p=0.0)
    config = read_generation_config(written(tmp_path, QWEN)).with_settings(settings)
    assert config.sampling.report() == {
        "temperature": {"value": 0.6, "origin": NAME},
        "top_p": {"value": 0.95, "origin": NAME},
        "top_k": {"value": 40, "origin": "setting"},
        "min_p": {"value": 0.0, "origin": "setting"},
        "repetition_penalty": {"value": 1.0, "origin": "default"},
    }
    assert str(config.sampling) == (
        f"temperature 0.6 ({NAME}), top_p 0.95 ({NAME}), top_k 40 (setting), min_p 0 (setting)"
    )
    assert str(NEUTRAL) == "temperature 1 (default)"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "0.6"),
        ("temperature", True),
        ("temperature", -0.1),
        ("temperature", 10**400),
        ("temperature", float("nan")),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("top_k", 20.0),
        ("top_k", 2**63),
        ("top_k", [20]),
        ("min_p", {}),
        ("min_p", float("-inf")),
        ("repetition_penalty", 0),
        ("repetition_penalty", 1e308),
        ("do_sample", "no"),
        ("do_sample", 0),
    ],
)
def test_only_the_invalid_field_is_ignored(field: str, value: object, tmp_path: Path) -> None:
    fine = {"temperature": 0.6, "eos_token_id": 7}
    config = read_generation_config(written(tmp_path, fine | {field: value}))
    assert config.sampling == SamplingDefaults(1.0 if field == "temperature" else 0.6)
    assert config.stop_tokens == (7,)
    assert [complaint.partition(" ")[0] for complaint in config.problems] == [field]


@pytest.mark.parametrize("ends", [7, [7], [7, "8", None, True, -1, 1.0, [9]]])
def test_only_valid_ids_are_stop_tokens(ends: object, tmp_path: Path) -> None:
    config = read_generation_config(written(tmp_path, {"eos_token_id": ends}))
    assert config.stop_tokens == (7,)


def looped(file: Path) -> None:
    file.symlink_to(file.name)


def endless(file: Path) -> None:
    file.symlink_to("/dev/zero")


def large(file: Path) -> None:
    file.write_bytes(b" " * MAX_BYTES + b"{}")


def holding(content: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(content)


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        (looped, "Too many levels of symbolic links"),
        (endless, "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (Path.mkdir, "Is a directory"),
        (large, "larger than 8 MiB"),
        (holding(b""), "not JSON"),
        (holding(b"\xff\xfe\x00"), "not JSON"),
        (holding(b"[" * 100_000), "not JSON"),
        (holding(b'{"top_k": ' + b"9" * 5000 + b"}"), "not JSON"),
        (holding(b"[1]"), "not a JSON object"),
        (holding(b"null"), "not a JSON object"),
    ],
)
def test_a_model_opens_with_any_generation_config_and_logs_one_line(
    place: Callable[[Path], object],
    complaint: str,
    own_copy: ModelFolder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends = open_model(own_copy).stop_tokens
    place(own_copy.folder / NAME)
    served = open_model(own_copy)
    assert served.dialect.sampling == NEUTRAL
    assert served.stop_tokens == ends
    (line,) = caplog.messages
    assert complaint in line


def test_a_folder_without_a_file_has_default_sampling(own_copy: ModelFolder) -> None:
    assert not (own_copy.folder / NAME).exists()
    assert open_model(own_copy).dialect.sampling.origins == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "do_sample")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(stated=st.dictionaries(st.sampled_from((*FIELDS, "eos_token_id")), json_values))
def test_any_generation_config_leaves_valid_values(
    stated: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from pensieve.engine.generation import Sampling

    folder = tmp_path_factory.mktemp("stated")
    sampling = read_generation_config(written(folder, stated)).sampling
    Sampling(
        sampling.temperature,
        sampling.top_p,
        sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
    )
