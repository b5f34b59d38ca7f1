"""`pensieve start`: order of checks, output, cleanup. Server and model are stand-ins."""

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.cli.app import run
from pensieve.cli.lifecycle.launching import Dependencies, run_in_background, run_in_foreground
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, current, own_record, publish
from pensieve.daemon.stop import stop
from pensieve.errors import (
    ModelUnavailableError,
    NotWritableError,
    PortInUseError,
    StartFailedError,
    UnsupportedPlatformError,
)
from pensieve.machine import Machine
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.paths import Paths, under_home
from pensieve.settings.resolve import Device, Flags, Settings
from tests.cli.fake_server import health, serving, stand_in_command, stand_ins_of

MAC = Machine("Darwin", "arm64", "3.13.1", macos="26.1")
LINUX = Machine("Linux", "x86_64", "3.13.1")
NO_FLAGS = Flags()


class Recorder:
    """Dependencies that record their calls."""

    def __init__(self, settings: Settings, machine: Machine = MAC, mode: str = "ready") -> None:
        self.settings = settings
        self.machine = machine
        self.mode = mode
        self.fetched: list[str] = []
        self.served: list[tuple[str, Device]] = []
        self.is_interactive = False
        self.on_serve = lambda: None

    def dependencies(self) -> Dependencies:
        return Dependencies(
            lambda: self.machine,
            self._fetch,
            self._serve,
            self._command,
            lambda *_: None,
            is_interactive=lambda: self.is_interactive,
        )

    def _fetch(self, name: str, paths: Paths) -> ModelFolder:
        self.fetched.append(name)
        return ModelFolder(name, f"someone/{name}", paths.models / name)

    def _serve(
        self, settings: Settings, folder: ModelFolder, device: Device, listener: socket.socket
    ) -> None:
        with socket.create_connection(listener.getsockname()):
            self.served.append((folder.name, device))
        self.on_serve()

    def _command(self, _flags: Flags) -> list[str]:
        return stand_in_command(self.settings.paths.state.parent, self.settings.port, self.mode)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = Settings(under_home(tmp_path / "home"), model="tiny", port=port)
    yield settings
    stop(settings.paths, is_forced=True)
    assert not stand_ins_of(settings.paths.state.parent)


def files_of(settings: Settings) -> list[Path]:
    return [path for path in settings.paths.state.rglob("*") if path.is_file()]


# in the background


def test_start_prints_address_model_context_and_next_commands(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(settings)
    assert run_in_background(settings, NO_FLAGS, recorder.dependencies()) == 0
    out = capsys.readouterr().out
    assert recorder.fetched == ["tiny"]
    assert settings.base_url in out
    assert "tiny (someone/tiny)" in out
    assert "8,192 tokens" in out
    assert "pensieve chat" in out
    assert "pensieve env" in out


@pytest.mark.parametrize("is_awaited", [True, False])
def test_start_with_the_default_model_suggests_a_better_one_on_a_terminal(
    settings: Settings, capsys: pytest.CaptureFixture[str], is_awaited: bool
) -> None:
    settings = replace(settings, model="phi-3-mini")
    recorder = Recorder(settings, replace(MAC, memory_bytes=24 << 30))
    recorder.is_interactive = True
    for _ in range(2):
        run_in_background(settings, NO_FLAGS, recorder.dependencies(), is_awaited=is_awaited)
        if not is_awaited:
            stop(settings.paths, is_forced=True)
            break
    assert capsys.readouterr().err.count("pensieve use qwen3.5-9b\n") == 1


@pytest.mark.parametrize(
    ("is_interactive", "origins"),
    [(False, {}), (True, {"model": "flag"}), (True, {"model": "file"})],
)
def test_nothing_is_suggested_in_a_pipe_or_for_a_chosen_model(
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    is_interactive: bool,
    origins: dict[str, str],
) -> None:
    settings = replace(settings, model="phi-3-mini", origins=origins)
    recorder = Recorder(settings, replace(MAC, memory_bytes=24 << 30))
    recorder.is_interactive = is_interactive
    run_in_background(settings, NO_FLAGS, recorder.dependencies())
    assert "pensieve use" not in "".join(capsys.readouterr())


def test_second_start_reports_the_running_server(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in_background(settings, NO_FLAGS, Recorder(settings).dependencies())
    record = current(settings.paths)
    assert record
    capsys.readouterr()
    second = Recorder(settings, machine=LINUX)
    assert run_in_background(settings, NO_FLAGS, second.dependencies()) == 0
    out, err = capsys.readouterr()
    assert f"pensieve is already running (pid {record.pid}, {settings.base_url})" in out
    assert err == ""
    assert second.fetched == []
    assert current(settings.paths) == record


def test_flags_without_effect_on_the_running_server_are_named(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in_background(settings, NO_FLAGS, Recorder(settings).dependencies())
    capsys.readouterr()
    flags = Flags("other", "cpu", port=settings.port, idle_unload=5.0, speculation="off")
    assert run_in_background(settings, flags, Recorder(settings).dependencies()) == 0
    err = capsys.readouterr().err
    assert "pensieve restart --model other --idle-unload 5.0 --speculation off" in err
    assert "--port" not in err
    run_in_background(settings, Flags(speculation="auto"), Recorder(settings).dependencies())
    assert capsys.readouterr().err == ""


def test_a_model_that_does_not_exist_is_refused_next_to_a_running_server(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in_background(settings, NO_FLAGS, Recorder(settings).dependencies())
    capsys.readouterr()

    def check(name: str, _: Paths) -> None:
        raise ModelUnavailableError(f"There is no model called {name!r}.")

    dependencies = replace(Recorder(settings).dependencies(), check=check)
    with pytest.raises(ModelUnavailableError, match="nosuch"):
        run_in_background(settings, Flags(model="nosuch"), dependencies)
    assert "restart" not in capsys.readouterr().err


def test_options_for_a_service_are_advised_as_settings(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server, server_lock.acquire(settings.paths):
        address = Address("127.0.0.1", server.server_port, "tiny", "cpu")
        record = own_record(address, service="homebrew.mxcl.pensieve")
        with publish(settings.paths, record):
            flags = Flags(model="my own")
            run_in_background(settings, flags, Recorder(settings).dependencies())
    assert capsys.readouterr().err.endswith(
        "  pensieve config set model 'my own'\n  brew services restart pensieve\n"
    )


def test_sleeping_server_counts_as_running(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in_background(settings, NO_FLAGS, Recorder(settings, mode="asleep").dependencies())
    capsys.readouterr()
    assert run_in_background(settings, NO_FLAGS, Recorder(settings).dependencies()) == 0
    assert "pensieve is already running" in capsys.readouterr().out


def test_unsupported_machine_is_refused_before_the_download(settings: Settings) -> None:
    recorder = Recorder(settings, machine=LINUX)
    with pytest.raises(UnsupportedPlatformError):
        run_in_background(settings, NO_FLAGS, recorder.dependencies())
    with pytest.raises(UnsupportedPlatformError):
        run_in_foreground(settings, NO_FLAGS, recorder.dependencies())
    assert recorder.fetched == []
    assert not settings.paths.state.exists()


def test_port_in_use_is_refused_before_the_download(settings: Settings) -> None:
    recorder = Recorder(settings)
    with serving() as server, pytest.raises(PortInUseError):
        run_in_background(
            replace(settings, port=server.server_port), NO_FLAGS, recorder.dependencies()
        )
    assert recorder.fetched == []


def test_failed_running_server_is_reported(settings: Settings) -> None:
    with serving() as server, server_lock.acquire(settings.paths):
        server.healths = lambda: health("failed", "weights are cursed")
        with (
            publish(
                settings.paths, own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))
            ),
            pytest.raises(StartFailedError, match="weights are cursed") as failure,
        ):
            run_in_background(settings, NO_FLAGS, Recorder(settings).dependencies())
    assert "pensieve restart" in (failure.value.hint or "")


@pytest.mark.parametrize("mode", ["dies", "fails"])
def test_failed_start_leaves_nothing(mode: str, settings: Settings) -> None:
    with pytest.raises(StartFailedError):
        run_in_background(settings, NO_FLAGS, Recorder(settings, mode=mode).dependencies())
    assert files_of(settings) == []


# in the foreground


def test_the_server_runs_with_lock_port_and_record_and_leaves_none(settings: Settings) -> None:
    recorder = Recorder(settings)
    seen = []
    recorder.on_serve = lambda: seen.append(current(settings.paths))
    assert run_in_foreground(settings, NO_FLAGS, recorder.dependencies()) == 0
    assert recorder.served == [("tiny", "gpu")]
    assert (seen[0].pid, seen[0].model, seen[0].port) == (os.getpid(), "tiny", settings.port)
    assert seen[0].log == ""
    assert files_of(settings) == []


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_ends_the_server_leaves_nothing(
    stop_signal: signal.Signals, settings: Settings
) -> None:
    recorder = Recorder(settings)
    before = signal.getsignal(signal.SIGTERM)
    recorder.on_serve = lambda: signal.raise_signal(stop_signal)
    if stop_signal == signal.SIGTERM:
        assert run_in_foreground(settings, NO_FLAGS, recorder.dependencies()) == 0
    else:
        with pytest.raises(KeyboardInterrupt):
            run_in_foreground(settings, NO_FLAGS, recorder.dependencies())
    assert files_of(settings) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_server_that_fails_leaves_nothing(settings: Settings) -> None:
    recorder = Recorder(settings)
    recorder.on_serve = lambda: 1 // 0
    with pytest.raises(ZeroDivisionError):
        run_in_foreground(settings, NO_FLAGS, recorder.dependencies())
    assert files_of(settings) == []


def test_foreground_start_next_to_a_running_server_is_no_error(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(settings)
    record = own_record(Address("127.0.0.1", 1, "tiny", "cpu"))
    with server_lock.acquire(settings.paths):
        with publish(settings.paths, replace(record, phase="fetching")):
            assert run_in_foreground(settings, NO_FLAGS, recorder.dependencies()) == 0
        assert "already starting" in capsys.readouterr().err
        with publish(settings.paths, record):
            assert run_in_foreground(settings, NO_FLAGS, recorder.dependencies()) == 0
    assert f"is already running (pid {os.getpid()}" in capsys.readouterr().err
    assert recorder.served == []
    assert recorder.fetched == []


def test_public_host_requires_an_own_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PENSIEVE_API_KEY", raising=False)
    assert run(["start", "--host", "0.0.0.0"]) == 78
    assert run(["start", "--foreground", "--host", "0.0.0.0"]) == 78
    err = capsys.readouterr().err
    assert "PENSIEVE_API_KEY" in err
    assert "openssl rand" in err
    assert list(tmp_path.iterdir()) == []


def test_uncreatable_state_folder_is_named(settings: Settings) -> None:
    settings.paths.state.parent.touch()
    with pytest.raises(NotWritableError, match="state") as failure:
        run_in_foreground(settings, NO_FLAGS, Recorder(settings).dependencies())
    assert "PENSIEVE_HOME" in (failure.value.hint or "")
    settings.paths.state.parent.unlink()
