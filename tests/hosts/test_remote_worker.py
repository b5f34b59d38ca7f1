"""What a machine says about itself when another one asks whether it can run the model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pensieve import __version__
from pensieve.errors import SettingsError
from pensieve.hosts.greeting import Answer, Question
from pensieve.hosts.model_identity import identity_of, name_of
from pensieve.hosts.problems import problem_of
from pensieve.hosts.remote_worker import examine
from pensieve.machine import Machine
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings
from tests.support.tiny_models import build

MAC = Machine("Darwin", "arm64", "3.14.0", chip="Apple M4", macos="26.1", memory_bytes=16 << 30)
INTEL = Machine("Darwin", "x86_64", "3.14.0", macos="15.0", memory_bytes=16 << 30)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture
def question(model: Path) -> Question:
    return Question(__version__, "worker", str(model), identity_of(model))


def settings_in(home: Path, **values: Any) -> Settings:
    return Settings(under_home(home), **values)


def answer_of(
    question: Question, home: Path, machine: Machine = MAC, **values: Any
) -> tuple[Answer, dict[str, Any]]:
    return examine(question, lambda: machine, lambda: settings_in(home, **values))


def problem(question: Question, answer: Answer) -> tuple[str, str]:
    found = problem_of("studio.local", question, answer)
    assert found
    return found


def test_machine_that_can_run_the_model_gives_its_own_folders_device_and_limits(
    question: Question, model: Path, tmp_path: Path
) -> None:
    answer, load = answer_of(question, tmp_path, memory_gb=5.0)
    assert (answer.version, answer.chip, answer.device) == (__version__, "Apple M4", "gpu")
    assert (answer.problem, answer.memory_bytes) == (None, 16 << 30)
    assert answer.context_tokens
    assert load["model_folder"] == str(model.resolve())
    assert load["prefix_folder"] == str(settings_in(tmp_path).paths.prefixes)
    assert load["device"] == "gpu"
    assert load["limits"]["memory_limit_bytes"] == 5 * 10**9
    assert json.dumps(load)


def test_without_a_model_only_the_machine_is_described(question: Question, tmp_path: Path) -> None:
    answer, load = answer_of(replace(question, model=""), tmp_path)
    assert (answer.problem, answer.context_tokens, load) == (None, None, {})


def test_another_version_is_named_before_all_else(question: Question, tmp_path: Path) -> None:
    answer, _ = answer_of(replace(question, version="0.0.1"), tmp_path, INTEL)
    assert (answer.problem, answer.version) == ("version", __version__)


def test_machine_without_a_gpu_for_mlx_is_refused(question: Question, tmp_path: Path) -> None:
    answer, _ = answer_of(question, tmp_path, INTEL)
    assert problem(question, answer)[0].startswith("studio.local cannot run models: ")


def test_settings_that_are_not_allowed_there_are_named(question: Question) -> None:
    def refuse() -> Settings:
        raise SettingsError("PENSIEVE_PORT is not a number.")

    answer, _ = examine(question, lambda: MAC, refuse)
    assert "PENSIEVE_PORT is not a number." in problem(question, answer)[0]


def test_missing_model_is_pulled_and_a_folder_is_copied(question: Question, tmp_path: Path) -> None:
    by_name = replace(question, model="phi-3-mini")
    text, fix = problem(by_name, answer_of(by_name, tmp_path)[0])
    assert text == "phi-3-mini is not on studio.local."
    assert fix == "pensieve pull phi-3-mini --hosts studio.local"
    by_folder = replace(question, model=f"{tmp_path}/my model")
    _, fix = problem(by_folder, answer_of(by_folder, tmp_path)[0])
    assert fix == f"rsync -a '{tmp_path}/my model/' studio.local:'{tmp_path}/my model/'"


def test_another_model_of_that_name_is_refused(question: Question, tmp_path: Path) -> None:
    other = replace(question, files={**question.files, "config.json": "00"})
    text, _ = problem(other, answer_of(other, tmp_path)[0])
    assert text.endswith(" is not the one here: config.json differs.")


def test_model_whose_files_are_not_known_is_looked_for_alone(
    question: Question, tmp_path: Path
) -> None:
    answer, _ = answer_of(replace(question, files={}), tmp_path)
    assert answer.problem is None


def test_model_that_does_not_fit_is_refused_with_both_sizes(
    question: Question, tmp_path: Path
) -> None:
    answer, load = answer_of(question, tmp_path, memory_gb=0.5)
    text, fix = problem(question, answer)
    assert "does not fit the memory of studio.local: it needs " in text
    assert text.endswith(" GB, and the limit there is 0.5 GB.")
    assert f"pensieve plan {question.model}" in fix
    assert load == {}


def test_folder_of_a_person_is_found_by_its_path(tmp_path: Path) -> None:
    assert name_of(ModelFolder("mine", str(tmp_path), tmp_path)) == str(tmp_path)
    assert name_of(ModelFolder("phi-3-mini", "mlx-community/Phi-3", tmp_path)) == "phi-3-mini"
