"""What fits into memory, said before anything is loaded; and the prefixes on disk, shown and cleared."""

from pathlib import Path

import pytest

from pensieve.cli.app import run
from pensieve.cli.plan import choice, rendered
from pensieve.engine.budget import GB, kv_room, limit_bytes, mac_working_set
from pensieve.models.shape import PHI_3_MINI_SHAPE, shape_of
from tests import tiny_models

GIB = 2**30


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path))
    monkeypatch.delenv("PENSIEVE_MODEL", raising=False)
    return tmp_path


def limit_of(memory_gib: int) -> int:
    return limit_bytes(memory_gib * GIB, mac_working_set(memory_gib * GIB))


@pytest.mark.parametrize(("memory_gib", "bits"), [(8, 8), (16, 8), (24, 8), (36, None), (64, None)])
def test_full_precision_is_taken_where_it_holds_enough(memory_gib: int, bits: int | None) -> None:
    room = kv_room(limit_of(memory_gib), PHI_3_MINI_SHAPE.weights_bytes)
    assert choice(PHI_3_MINI_SHAPE, room).bits == bits


def test_a_16_gb_mac_keeps_everything_below_12_gb() -> None:
    assert limit_of(16) <= 12 * GB


def test_phi_3_costs_what_its_shape_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--ram", "16"]) == 0
    said = capsys.readouterr().out
    assert "phi-3-mini with 16 GB" in said
    assert "384.0" in said
    assert "216.0" in said
    assert "120.0" in said
    (chosen,) = [line for line in said.splitlines() if "chosen" in line]
    assert "8-bit" in chosen
    assert max(map(len, said.splitlines())) <= 80


def test_a_plan_never_promises_more_than_the_model_was_built_for() -> None:
    plan = rendered(PHI_3_MINI_SHAPE, 500 * GB)
    assert plan.count("131,072") == 3


def test_a_model_that_is_here_is_planned_from_its_own_config(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_models.build("llama", home / "model")
    shape = shape_of(folder)
    assert (shape.kv_heads, shape.context_tokens) == (2, 8192)
    assert run(["plan", "--model", str(folder), "--ram", "8"]) == 0
    assert "8,192" in capsys.readouterr().out


def test_a_model_that_is_not_here_cannot_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--model", "smollm2-135m"]) == 69
    assert "pensieve start --model smollm2-135m" in capsys.readouterr().err


def test_the_cache_is_shown_and_cleared(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "prefixes" / "abc"
    folder.mkdir(parents=True)
    (folder / "1.kv").write_bytes(bytes(2_000_000))
    assert run(["cache"]) == 0
    assert "1 files, 2.0 MB" in capsys.readouterr().out
    assert run(["cache", "clear"]) == 0
    assert not folder.exists()
    assert run(["cache"]) == 0
    assert "0 files" in capsys.readouterr().out
