"""status, stop, restart, version, update and uninstall, and the options of every command."""

import json
import os
import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from pensieve import __version__
from pensieve.cli.app import run
from pensieve.cli.commands.server.restart import merge_flags
from pensieve.cli.commands.setup.uninstall import owned_paths
from pensieve.cli.commands.setup.update import afterwards
from pensieve.cli.lifecycle.status_facts import as_json, facts
from pensieve.cli.model_facts import source_of
from pensieve.daemon import server_lock
from pensieve.daemon.health_client import Health, read
from pensieve.daemon.launch import launch, launch_detached, wait_for_other
from pensieve.daemon.processes import memory_of
from pensieve.daemon.server_record import Address, ServerRecord, current, own_record, publish
from pensieve.daemon.stop import stop
from pensieve.engine.generation import (
    NOT_MEASURED,
    DraftCounts,
    EngineStats,
    SourceCounts,
    SpeculationState,
)
from pensieve.errors import StartFailedError
from pensieve.installation import Keg
from pensieve.models.folder.snapshot import MARKER, Snapshot, folder_of, write_snapshot
from pensieve.paths import Paths, under_home
from pensieve.settings.resolve import Flags
from tests.cli.fake_server import health, serving, stand_in_command
from tests.cli.program import pensieve
from tests.support.ports import free_port

HERE = Address("127.0.0.1", 7777, "tiny", "cpu")
FIGURES = {
    "kv_bits": 8,
    "kv_reason": "8-bit: full precision would hold 6,000 tokens only",
    "memory_limit_bytes": 12_000_000_000,
    "weights_bytes": 2_300_000_000,
    "kv_budget_bytes": 6_400_000_000,
    "kv_used_bytes": 1_200_000_000,
    "prefix_memory_bytes": 400_000_000,
    "prefix_disk_bytes": 3_100_000_000,
    "prefix_disk_cap_bytes": 20_000_000_000,
    "written_today_bytes": 0,
    "daily_write_budget_bytes": 50_000_000_000,
    "is_writing_paused": True,
    "worker_bytes": 4_100_000_000,
    "queued": 3,
    "running": 2,
    "tokens_per_second": 41,
    "prompt_tokens_per_second": 130.2,
    "tokens_per_step": 2.5,
    "preempted": 4,
    "grammar_s": 0.25,
    "drafts": {
        "grammar": {"drafted": 400, "accepted": 400},
        "lookup": {"drafted": 0, "accepted": 0},
        "shadow": {"drafted": 8910, "accepted": 3720},
        "mtp": {"drafted": 0, "accepted": 0},
    },
}
DRAFTS = DraftCounts(SourceCounts(400, 400), shadow=SourceCounts(8910, 3720))
STATE = {"reason": "pays", "rows": 32, "ratio": 4.8, "has_head": False}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    for name in [name for name in os.environ if name.startswith("PENSIEVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path / "home"))
    return under_home(tmp_path / "home")


def nullable(kind: str) -> dict[str, object]:
    return {"type": [kind, "null"]}


NUMBERS = [
    "pid",
    "context_tokens",
    "in_flight",
    "idle_unload",
    "memory_bytes",
    "uptime_s",
    "restarts",
]
TEXTS = ["detail", "url", "model", "repo", "device", "host", "service", "log", "version"]
SCHEMA = {
    "type": "object",
    "properties": {
        "status": {
            "enum": ["ready", "asleep", "loading", "failed", "unreachable", "starting", "stopped"]
        },
        **dict.fromkeys(NUMBERS, nullable("number")),
        **dict.fromkeys(TEXTS, nullable("string")),
        "requests": nullable("array"),
        "replicas": nullable("array"),
        "shows_content": nullable("boolean"),
        "speculation": {"type": ["object", "null"], "required": ["reason", "rows", "ratio"]},
        "engine": {
            "type": "object",
            "properties": {
                **dict.fromkeys(EngineStats.__slots__, nullable("number")),
                "kv_reason": nullable("string"),
                "is_writing_paused": nullable("boolean"),
                "drafts": nullable("object"),
            },
            "required": list(EngineStats.__slots__),
            "additionalProperties": False,
        },
    },
    "required": [
        *("status", *NUMBERS, *TEXTS),
        *("requests", "replicas", "shows_content", "speculation", "engine"),
    ],
    "additionalProperties": False,
}


def test_status_as_json_has_one_shape_whatever_runs(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    def expected(code: int) -> dict:
        assert run(["status", "--json"]) == code
        report = json.loads(capsys.readouterr().out)
        jsonschema.validate(report, SCHEMA)
        return report

    assert expected(3)["status"] == "stopped"
    with serving() as server, server_lock.acquire(paths):
        assert expected(4)["status"] == "starting"
        server.healths = lambda: health() | {"engine": FIGURES, "speculation": STATE}
        address = Address("127.0.0.1", server.server_port, "tiny", "cpu")
        with publish(paths, own_record(address)):
            ready = expected(0)
            server.healths = lambda: health("asleep") | {"idle_unload": 30.0}
            asleep = expected(0)
    assert (ready["status"], ready["url"], ready["pid"]) == ("ready", server.url, os.getpid())
    assert (ready["engine"], ready["speculation"]) == (FIGURES, STATE)
    assert (asleep["status"], asleep["in_flight"], asleep["idle_unload"]) == ("asleep", 0, 30.0)
    assert ready["memory_bytes"] > 10_000_000


def test_commands_name_a_server_whose_record_is_damaged(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with server_lock.acquire(paths):
        paths.server_file.write_text("{", encoding="utf-8")
        assert run(["status"]) == 4
        out, err = capsys.readouterr()
        assert f"(pid {os.getpid()}), but its record is damaged" in out
        assert "pensieve restart" in err
        for arguments in (["start"], ["start", "--no-wait"], ["start", "--foreground"]):
            assert run([*arguments, "--device", "cpu"]) == 69
            out, err = capsys.readouterr()
            assert (out, f"(pid {os.getpid()})" in err) == ("", True)
            assert "  pensieve restart\n" in err


def test_status_names_a_server_whose_record_was_removed(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with server_lock.acquire(paths):
        os.utime(paths.lock_file, (1e9, 1e9))  # locked for years
        assert run(["status"]) == 4
        out, err = capsys.readouterr()
        assert f"(pid {os.getpid()}), but its record is missing" in out
        assert err == "Restart it:\n  pensieve restart\n"
        assert run(["status", "--json"]) == 4
        report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, SCHEMA)
    assert report["status"] == "unreachable"
    assert "its record is missing" in report["detail"]


@pytest.mark.parametrize("arguments", [["rm", "smollm2-135m", "-y"], ["pull", "smollm2-135m"]])
def test_a_model_is_not_touched_while_it_is_unknown_which_one_is_served(
    paths: Paths, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = source_of("smollm2-135m")
    folder = folder_of(source, paths.models)
    folder.mkdir(parents=True)
    write_snapshot(Snapshot(source.repo, "f" * 40, ()), folder / MARKER)
    with server_lock.acquire(paths):
        os.utime(paths.lock_file, (1e9, 1e9))
        assert run(arguments) == 69
    assert "its record is missing" in capsys.readouterr().err
    assert (folder / MARKER).exists()


def test_status_shows_engine_facts_within_80_columns(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server, server_lock.acquire(paths):
        server.healths = lambda: health() | {"engine": FIGURES, "speculation": STATE}
        address = Address("127.0.0.1", server.server_port, "tiny", "cpu")
        with publish(paths, own_record(address, service="homebrew.mxcl.pensieve")):
            assert run(["status"]) == 0
    out = capsys.readouterr().out
    assert "41.0 tokens per second\n" in out
    assert "queued       3\n" in out
    assert "preempted    4 times\n" in out
    assert "1.2 GB of 6.4 GB\n" in out
    assert "speculation  on: 2.5 tokens a step, 4,120 of 9,310 drafts accepted\n" in out
    assert "precision    8-bit: full precision would hold 6,000 tokens only\n" in out
    assert "400 MB in memory, 3.1 GB of 20.0 GB on disk\n" in out
    assert "nothing of 50.0 GB today (writing paused)\n" in out
    assert "brew services" in out
    assert max(map(len, out.splitlines())) < 80


@pytest.mark.parametrize(
    ("service", "command"),
    [("", "pensieve restart"), ("homebrew.mxcl.pensieve", "brew services restart pensieve")],
)
@pytest.mark.parametrize("arguments", [["status"], ["start"]])
def test_version_mismatch_names_the_restart_command(
    arguments: list[str],
    service: str,
    command: str,
    paths: Paths,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving() as server, server_lock.acquire(paths):
        address = Address("127.0.0.1", server.server_port, "tiny", "cpu")
        with publish(paths, own_record(address, service=service)):
            assert run(arguments) == 0
            assert "the server is" not in capsys.readouterr().err
            server.healths = lambda: health() | {"version": "0.0.9"}
            assert run(arguments) == 0
    err = capsys.readouterr().err
    assert f"the server is version 0.0.9, the command {__version__}." in err
    assert f"\n  {command}\n" in err


@pytest.mark.parametrize(
    ("minutes", "line"),
    [(30.0, "after 30 minutes without work"), (0.5, "after 0.5"), (0.0, "never")],
)
def test_status_shows_the_idle_unload_time(
    minutes: float, line: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    detail = "the next request loads the model"
    with serving() as server, server_lock.acquire(paths):
        server.healths = lambda: health("asleep", detail) | {"idle_unload": minutes}
        address = Address("127.0.0.1", server.server_port, "tiny", "cpu")
        with publish(paths, own_record(address)):
            assert run(["status"]) == 0
    out = capsys.readouterr().out
    assert f"asleep ({detail})" in out
    assert f"unloads    {line}" in out


SETTING = SpeculationState("setting")
NO_FACTS = EngineStats(None, "full precision", 1, 2, 3)
WITH_HEAD = SpeculationState("pays", 32, 4.8, has_head=True)
BY_HEAD = replace(
    NO_FACTS,
    tokens_per_step=12.5,
    drafts=DraftCounts(shadow=SourceCounts(89100, 37200), mtp=SourceCounts(4000, 3120)),
)


@pytest.mark.parametrize(
    ("state", "engine", "service", "expected"),
    [
        (None, NO_FACTS, "", ""),
        (SpeculationState("pays", 32, 4.8), NO_FACTS, "", "on: 32 tokens at once take 4.8 times"),
        (WITH_HEAD, NO_FACTS, "", "on, with MTP: 32 tokens at once take 4.8 times"),
        (WITH_HEAD, BY_HEAD, "", "40,320 of 93,100 drafts accepted, MTP 78%"),
        (SpeculationState("no_width_pays", 16, 14.1), None, "", "off, cannot pay: 16 tokens at"),
        (SpeculationState("caches"), NO_FACTS, "", "off: this model's caches cannot drop"),
        (NOT_MEASURED, NO_FACTS, "", "could not be timed (pensieve restart)"),
        (NOT_MEASURED, NO_FACTS, "homebrew.x", "timed (brew services restart pensieve)"),
        (SETTING, NO_FACTS, "", "off by the setting (pensieve restart --speculation auto)"),
        (SETTING, NO_FACTS, "homebrew.x", "(pensieve config set speculation auto)"),
    ],
)
def test_status_names_the_reason_and_the_command_that_changes_it(
    state: SpeculationState | None, engine: EngineStats | None, service: str, expected: str
) -> None:
    record = own_record(HERE, service=service)
    row = facts(record, Health("ready", engine=engine, speculation=state), 0.0)["speculation"]
    assert expected in row
    assert bool(row) is (state is not None)
    assert len(row) < 80 - len("speculation  ")


def test_status_of_an_engine_that_queued_and_preempted_nothing_says_nothing_of_it() -> None:
    rows = facts(own_record(HERE), Health("ready", engine=NO_FACTS), 0.0)
    assert (rows["queued"], rows["preempted"]) == ("", "")


def test_engine_facts_are_read_whole_or_not_at_all() -> None:
    answer = {"status": "ready", "pid": 1}
    stats = replace(EngineStats(**FIGURES), drafts=DRAFTS)
    assert read(answer | {"engine": FIGURES | {"new": 2}}, pid=1).engine == stats
    full_precision = read(answer | {"engine": FIGURES | {"kv_bits": None}}, pid=1)
    assert full_precision.engine == replace(stats, kv_bits=None)
    without_lookup = {name: FIGURES["drafts"][name] for name in ("grammar", "shadow")}
    for invalid in (
        *({"kv_bits": "8"}, {"is_writing_paused": 1}, {"kv_used_bytes": True}),
        *({"drafts": None}, {"drafts": without_lookup}),
    ):
        assert read(answer | {"engine": FIGURES | invalid}, pid=1) == Health("ready")
    for invalid in ([1], None, {}, {"kv_bits": 8}):
        assert read(answer | {"engine": invalid}, pid=1) == Health("ready")


def test_downloading_server_is_starting_and_not_queried(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    record = ServerRecord(
        **{**{n: getattr(own_record(HERE), n) for n in ServerRecord.__slots__}, "phase": "fetching"}
    )
    with server_lock.acquire(paths), publish(paths, record):
        assert run(["status"]) == 4
    assert "loading (fetching the model)" in capsys.readouterr().out


def test_memory_includes_child_processes() -> None:
    alone = memory_of(os.getpid())
    assert alone > 10_000_000
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        assert 0 < memory_of(child.pid) < alone
        assert memory_of(os.getpid()) > memory_of(child.pid)
    assert memory_of(2**30) == 0


def test_unknown_facts_are_null_in_json() -> None:
    report = as_json("stopped", None, Health("unreachable"), 0)
    assert report.pop("status") == "stopped"
    report.pop("engine")
    assert set(report.values()) == {None}


# restart and stop


def test_restart_merges_old_flags_under_new_ones() -> None:
    running = {"model": "a", "port": 1, "of another version": "x"}
    assert merge_flags(running, Flags(port=2)) == Flags(model="a", port=2)
    assert merge_flags({}, Flags(port=2)) == Flags(port=2)


def test_start_without_wait_launches_a_server(paths: Paths) -> None:
    pid = launch_detached(stand_in_command(paths.state.parent, free_port(), "slow"), paths)
    assert server_lock.is_held(paths)
    found = wait_for_other(paths)
    assert found
    assert found.record.pid == pid
    assert stop(paths, is_forced=False)


def test_start_without_wait_can_be_stopped_at_once(paths: Paths) -> None:
    launch_detached(stand_in_command(paths.state.parent, free_port(), "slow"), paths)
    assert run(["stop"]) == 0
    assert not server_lock.is_held(paths)
    with pytest.raises(StartFailedError, match="ended while starting"):
        launch_detached(stand_in_command(paths.state.parent, free_port(), "dies"), paths)


@pytest.mark.parametrize(
    ("arguments", "when"), [(["stop"], "next login"), (["stop", "--force"], "at once")]
)
def test_stopping_a_service_says_how_it_stays_stopped(
    arguments: list[str],
    when: str,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XPC_SERVICE_NAME", "homebrew.mxcl.pensieve")
    launch(stand_in_command(paths.state.parent, free_port(), "ready"), paths)
    assert run(["restart"]) == 1
    assert "brew services restart pensieve" in capsys.readouterr().err
    assert run(arguments) == 0
    err = capsys.readouterr().err
    assert when in err
    assert "brew services stop pensieve" in err


@pytest.mark.parametrize(
    ("mode", "arguments", "expected"),
    [
        ("never", ["start"], "The server keeps running."),
        ("stubborn", ["stop"], "The server stops after its open answers."),
    ],
)
def test_ctrl_c_while_waiting_reports_what_keeps_running(
    mode: str, arguments: list[str], expected: str, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = launch_detached(stand_in_command(paths.state.parent, free_port(), mode), paths)
    try:
        ctrl_c = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
        ctrl_c.start()
        assert run(arguments) == 130
        out, err = capsys.readouterr()
        assert (out, err.splitlines()[-1].partition(". ")[0]) == ("", "Interrupted")
        assert expected in err
        record = current(paths)
        assert record
        assert record.pid == pid
    finally:
        stop(paths, is_forced=True)


# the rest


def test_the_versions_are_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "--json"]) == 0
    versions = json.loads(capsys.readouterr().out)
    assert {"pensieve", "python", "mlx", "mlx_lm", "system", "architecture"} <= versions.keys()
    assert all(isinstance(value, str | None) for value in versions.values())


def test_update_only_prints_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["update"]) == 0
    assert "does not update itself" in capsys.readouterr().out
    assert "restarts by itself" in afterwards(Keg(Path("/opt/homebrew"), "pensieve"))
    assert "pensieve restart" in afterwards(None)


def test_uninstall_lists_files_and_removes_them_only_with_purge(tmp_path: Path) -> None:
    home = tmp_path / "pensieve"
    elsewhere = tmp_path / "models elsewhere"
    (home / "state").mkdir(parents=True)
    (home / "logs").mkdir()
    (home / "logs" / "server.log").write_bytes(b"x" * 5000)
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (home / "models").symlink_to(elsewhere)
    listed = pensieve("uninstall", home=tmp_path)
    assert f"5 kB  {home / 'logs'}".encode() in listed.stdout
    assert b"-m pip uninstall pensieve-llm" in listed.stderr
    unasked = pensieve("uninstall", "--purge", home=tmp_path)
    assert unasked.returncode == 2
    assert b"--yes" in unasked.stderr
    assert (home / "logs" / "server.log").exists()
    assert pensieve("uninstall", "--purge", "--yes", home=tmp_path).returncode == 0
    assert not home.exists()
    assert (elsewhere / "precious").exists()
    assert b"pensieve has no files" in pensieve("uninstall", home=tmp_path).stdout


def test_purge_is_refused_while_a_server_runs(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with server_lock.acquire(paths):
        assert run(["uninstall", "--purge", "--yes"]) == 1
    assert "pensieve stop" in capsys.readouterr().err


def test_log_of_the_homebrew_service_is_listed(paths: Paths) -> None:
    keg = Keg(Path("/opt/homebrew"), "pensieve")
    of_service = set(owned_paths(paths, keg)) - set(owned_paths(paths, None))
    assert {file.name for file in of_service} == {"pensieve.log", "pensieve.log.1"}


def test_an_uninstall_stops_the_homebrew_service_first(
    paths: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    agents = tmp_path / "Library" / "LaunchAgents"
    agents.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(["uninstall"]) == 0
    assert "brew services" not in capsys.readouterr().err
    (agents / "homebrew.mxcl.pensieve.plist").touch()
    assert run(["uninstall"]) == 0
    commands = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    assert commands == ["  brew services stop pensieve", "  brew uninstall pensieve"]
    paths.state.mkdir(parents=True)
    record = own_record(HERE, service="homebrew.mxcl.pensieve")
    with server_lock.acquire(paths), publish(paths, record):
        assert run(["uninstall", "--purge", "--yes"]) == 1
    assert "brew services stop pensieve" in capsys.readouterr().err


def test_common_options_are_accepted_anywhere_for_one_run(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["-q", "env"], ["env", "--quiet"]):
        assert run(arguments) == 0
        assert capsys.readouterr().err == ""
    assert run(["env"]) == 0
    assert "pensieve start" in capsys.readouterr().err
    assert run(["-v", "config", "get", "prot"]) == 78
    assert "Traceback" in capsys.readouterr().err
    assert run(["-q", "config", "get", "prot"]) == 78
    err = capsys.readouterr().err
    assert 'Did you mean "port"' in err
    assert "Traceback" not in err
    monkeypatch.setenv("FORCE_COLOR", "1")
    run(["config", "get", "prot"])
    assert "\x1b[" in capsys.readouterr().err
    run(["config", "get", "prot", "--no-color"])
    assert "\x1b[" not in capsys.readouterr().err
    assert "NO_COLOR" not in os.environ


def test_exit_codes_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "exit-codes"]) == 0
    printed = capsys.readouterr().out
    for code in (0, 1, 2, 3, 4, 65, 69, 73, 75, 78, 130, 141, 143):
        assert f" {code}  " in printed


def test_nested_folder_is_not_listed_separately(tmp_path: Path) -> None:
    logs = tmp_path / ".local" / "state" / "pensieve" / "logs"
    logs.mkdir(parents=True)
    (logs / "server.log").write_bytes(b"x" * 5000)
    listed = pensieve("uninstall", home=tmp_path, PENSIEVE_HOME="")
    places = [line.split(maxsplit=2)[-1] for line in listed.stdout.decode().splitlines()]
    assert places == [str(logs.parent)]
