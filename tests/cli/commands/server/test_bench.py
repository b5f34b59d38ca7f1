"""`pensieve bench` on a fake server: what it refuses before it measures, and what it prints."""

import itertools
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pensieve.bench.prompts import Prompts
from pensieve.bench.result import Figure, Result, loads
from pensieve.bench.session import Session
from pensieve.cli.app import run
from pensieve.cli.commands.server.bench import (
    check_memory,
    prepare_running,
    print_result,
    write_saved,
)
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, current, own_record, publish
from pensieve.errors import MachineError
from pensieve.machine import GIB, Machine
from pensieve.paths import under_home
from pensieve.settings import resolve as settings_module
from tests.cli.fake_server import FakeServer, health, message, serving

RESULT = Result(
    "2026-12-01T04:00:00+00:00", {"model": "a"}, (Figure("decode", "tokens/s", (5.0,)),)
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@contextmanager
def running(home: Path) -> Iterator[FakeServer]:
    paths = under_home(home)
    with serving() as server, server_lock.acquire(paths):
        server.answer_to = lambda _: message(*"abcdefghijkl")
        server.tokens = lambda body: len(str(body["messages"][0]["content"]).split())  # type: ignore[index]
        record = own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))
        with publish(paths, record):
            yield server


def test_running_server_is_measured_and_named(home: Path) -> None:
    ticks = itertools.count(0.0, 0.5)
    with running(home):
        settings = settings_module.resolve()
        record = current(settings.paths)
        assert record
        measure = prepare_running(settings, record)
        session = Session(60, Prompts(random.Random(1)), clock=lambda: next(ticks))
        result = measure(session, lambda _: None)
    names = {figure.name for figure in result.figures}
    assert {"first token, short prompt", "first token, 4k prompt again"} <= names
    assert result.conditions["model"] == "tiny (someone/tiny)"
    assert result.conditions["server"] == "running before"
    assert "16k prompt: the context is 8,192 tokens" in result.left_out


def test_busy_server_is_not_measured(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(home) as server:
        server.healths = lambda: health() | {"in_flight": 2}
        assert run(["bench"]) == 69
        assert not server.calls
    assert "answering 2 requests" in capsys.readouterr().err


def test_server_that_loads_is_not_measured(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(home) as server:
        server.healths = lambda: health("loading", "3 of 9 GB")
        assert run(["bench"]) == 69
        assert not server.calls
    assert "it is loading. 3 of 9 GB" in capsys.readouterr().err


def test_wrong_files_are_refused_before_measuring(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.json").write_text("{}")
    with running(home) as server:
        assert run(["bench", "--compare", str(tmp_path / "missing.json")]) == 2
        assert run(["bench", "--compare", str(tmp_path / "no.json")]) == 2
        assert run(["bench", "--save", str(tmp_path / "missing" / "b.json")]) == 73
        assert run(["bench", "--save", str(tmp_path)]) == 73
        assert run(["bench", "--time", "5"]) == 2
        assert not server.calls
    printed = capsys.readouterr().err
    assert "is not a saved run" in printed
    assert f"there is no folder {tmp_path / 'missing'}" in printed


def test_saved_run_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_saved(tmp_path / "b.json", RESULT)
    saved = loads((tmp_path / "b.json").read_bytes())
    print_result(RESULT, saved, is_json=False)
    assert "Compared with the run of 2026-12-01T04:00:00+00:00" in capsys.readouterr().out


def test_json_has_both_runs(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(RESULT, RESULT, is_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed["figures"][0]["median"] == 5.0
    assert printed["compared_with"]["figures"] == printed["figures"]
    assert printed["differences"] == []


def test_second_model_that_does_not_fit_is_refused_with_the_commands(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "vocab_size": 100,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 4096,
    }
    (model / "config.json").write_text(json.dumps(config))
    machine = Machine("Linux", "x86_64", "3.12", memory_bytes=16 * GIB)
    settings = settings_module.resolve()
    check_memory(settings, model, machine, used_bytes=GIB)
    with pytest.raises(MachineError, match="second server") as refused:
        check_memory(settings, model, machine, used_bytes=12 * GIB)
    assert "pensieve stop && pensieve bench --own-server" in (refused.value.hint or "")
