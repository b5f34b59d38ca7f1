"""`pensieve restart`: the running server stops only if the new one can start."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pensieve.cli.commands.server.restart import restart_server
from pensieve.cli.lifecycle.launching import Dependencies
from pensieve.daemon import server_lock
from pensieve.daemon.launch import flags_of, launch, server_command
from pensieve.daemon.server_record import current
from pensieve.daemon.stop import stop
from pensieve.errors import (
    HostError,
    ModelUnavailableError,
    PensieveError,
    PortInUseError,
    SettingsError,
    UnsupportedPlatformError,
)
from pensieve.machine import Machine
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.paths import Paths, under_home
from pensieve.settings.resolve import Flags
from tests.cli.fake_server import stand_in_command
from tests.support.ports import free_port

MAC = Machine("Darwin", "arm64", "3.13.1", macos="26.1")
LINUX = Machine("Linux", "x86_64", "3.13.1", has_mlx_cpu=True)


@dataclass
class Parts:
    """What `restart` is built from; a model called "nosuch" cannot be fetched."""

    paths: Paths
    port: int
    machine: Machine = MAC
    fetched: list[str] = field(default_factory=list)
    started: list[Flags] = field(default_factory=list)
    on_fetch: Callable[[], None] = lambda: None

    def dependencies(self) -> Dependencies:
        return Dependencies(
            inspect=lambda: self.machine,
            fetch=self._fetch,
            serve=lambda *_: None,
            server_command=self._command,
            check=lambda *_: None,
            is_interactive=lambda: False,
        )

    def _fetch(self, name: str, paths: Paths) -> ModelFolder:
        if name == "nosuch":
            raise ModelUnavailableError("There is no model called 'nosuch'.")
        self.on_fetch()
        self.fetched.append(name)
        return ModelFolder(name, f"someone/{name}", paths.models / name)

    def _command(self, flags: Flags) -> list[str]:
        self.started.append(flags)
        return stand_in_command(self.paths.state.parent, self.port, "ready")


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    for name in [name for name in os.environ if name.startswith("PENSIEVE_")]:
        monkeypatch.delenv(name)
    parts = Parts(under_home(tmp_path / "home"), free_port())
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PENSIEVE_PORT", str(parts.port))
    yield parts
    stop(parts.paths, is_forced=True)


def start(parts: Parts, *arguments: str, mode: str = "ready") -> int:
    """Start a stand-in whose command line ends in `arguments`; return its process id."""
    command = stand_in_command(parts.paths.state.parent, parts.port, mode)
    return launch([*command, *arguments], parts.paths).record.pid


def is_running(parts: Parts, pid: int) -> bool:
    server = server_lock.holder(parts.paths)
    return server is not None and server.pid == pid


@pytest.mark.parametrize(
    ("flags", "machine", "error"),
    [
        (Flags(model="nosuch"), MAC, ModelUnavailableError),
        (Flags(), LINUX, UnsupportedPlatformError),
        (Flags(device="gpu"), LINUX, UnsupportedPlatformError),
        (Flags(host="0.0.0.0"), MAC, SettingsError),
    ],
)
def test_a_start_that_would_fail_leaves_the_running_server(
    parts: Parts, flags: Flags, machine: Machine, error: type[PensieveError]
) -> None:
    pid = start(parts)
    parts.machine = machine
    with pytest.raises(error) as failure:
        restart_server(flags, parts.dependencies())
    assert is_running(parts, pid)
    hint = failure.value.hint or ""
    assert hint.splitlines()[-1] == f"The running server (pid {pid}) was not stopped."
    assert "pensieve start" not in hint


def test_an_address_of_no_machine_leaves_the_running_server(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = start(parts)
    monkeypatch.setenv("PENSIEVE_API_KEY", "0123456789abcdef" * 4)
    with pytest.raises(SettingsError, match="2001:db8::1 is not an address of this machine"):
        restart_server(Flags(host="2001:db8::1"), parts.dependencies())
    assert is_running(parts, pid)


def test_another_programs_port_leaves_the_running_server(parts: Parts) -> None:
    pid = start(parts)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = Flags(port=taken.getsockname()[1])
        with pytest.raises(PortInUseError, match=f"pid {os.getpid()}"):
            restart_server(flags, parts.dependencies())
    assert is_running(parts, pid)


def test_a_host_that_is_not_reached_leaves_the_running_server(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = start(parts)
    monkeypatch.setenv("PENSIEVE_SSH_COMMAND", "false")
    with pytest.raises(HostError, match="mac-b"):
        restart_server(Flags(hosts="mac-b"), parts.dependencies())
    assert is_running(parts, pid)


def test_a_missing_model_is_fetched_before_the_running_server_stops(parts: Parts) -> None:
    pid = start(parts)
    seen: list[bool] = []
    parts.on_fetch = lambda: seen.append(is_running(parts, pid))
    assert restart_server(Flags(model="other"), parts.dependencies()) == 0
    assert parts.fetched == ["other", "other"]
    assert seen == [True, False]


@pytest.mark.parametrize("damage", [None, "{"])
def test_without_a_readable_record_the_options_come_from_the_command_line(
    parts: Parts, damage: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = start(parts, "--model", "my own", "--device", "cpu")
    parts.paths.server_file.unlink()
    if damage is not None:
        parts.paths.server_file.write_text(damage, encoding="utf-8")
    parts.machine = LINUX
    assert restart_server(Flags(idle_unload=5.0), parts.dependencies()) == 0
    assert parts.started == [Flags(model="my own", device="cpu", idle_unload=5.0)]
    err = capsys.readouterr().err
    assert f"(pid {pid}), but its record is {'damaged' if damage else 'missing'}" in err
    assert "which the restart uses: --model 'my own' --device cpu" in err
    record = current(parts.paths)
    assert record
    assert record.pid != pid


def test_ctrl_c_while_the_server_stops_names_the_start_with_all_options(
    parts: Parts, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = start(parts, mode="stubborn")
    ctrl_c = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        restart_server(Flags(device="cpu", port=parts.port), parts.dependencies())
    assert f"Then: pensieve start --device cpu --port {parts.port}\n" in capsys.readouterr().err
    assert is_running(parts, pid)


@pytest.mark.parametrize(
    "flags",
    [
        Flags(),
        Flags(model="/my models/a", device="cpu", host="::1", port=8080, idle_unload=0.5),
    ],
)
def test_flags_are_read_back_from_a_servers_command_line(flags: Flags) -> None:
    assert flags_of(server_command(flags)) == flags


def test_other_and_invalid_options_of_a_command_line_are_ignored() -> None:
    typed = ["python", "-m", "pensieve", "start", "--port=8080", "--new", "1", "--idle-unload", "x"]
    assert flags_of([*typed, "--model"]) == Flags(port=8080)
    assert flags_of([]) == Flags()
