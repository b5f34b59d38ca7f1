"""The server that a run starts for itself: a stand-in, with real processes and folders."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pensieve.bench.own_server import OwnServer
from pensieve.daemon import server_lock
from pensieve.errors import MachineError
from pensieve.paths import under_home
from pensieve.settings.resolve import Flags, Settings
from tests.cli.fake_server import stand_in_command, stand_ins_of


class Commands:
    """Starts stand-ins, and records with which flags and variables."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.flags: list[Flags] = []
        self.variables: list[dict[str, str]] = []

    def __call__(self, flags: Flags) -> list[str]:
        self.flags.append(flags)
        self.variables.append(dict(os.environ))
        assert flags.port
        return stand_in_command(self._home, flags.port, "ready")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "bench"
    yield folder
    assert not stand_ins_of(folder)
    assert not folder.exists()


def own_server(home: Path, commands: Commands, **settings: object) -> OwnServer:
    chosen = Settings(
        under_home(home.parent),
        origins=dict.fromkeys(settings, "file"),
        **settings,  # type: ignore[arg-type]
    )
    return OwnServer(chosen, Path("/models/tiny"), "cpu", home, commands)


def test_second_start_replaces_the_server_and_the_end_removes_both(home: Path) -> None:
    commands = Commands(home)
    own = own_server(home, commands)
    with own.folder():
        first = own.start("off")
        second = own.start("auto")
        assert first.health().status == "unreachable"
        assert second.health().status == "ready"
        assert len(stand_ins_of(home)) == 1
    assert [flags.speculation for flags in commands.flags] == ["off", "auto"]
    assert first.api_key == second.api_key


def test_server_has_the_users_settings_but_its_own_home_key_and_address(home: Path) -> None:
    commands = Commands(home)
    own = own_server(home, commands, kv_bits=8, wired=True, api_key="users", port=1234)
    with own.folder():
        own.start("off")
    (flags,), (variables,) = commands.flags, commands.variables
    assert variables["PENSIEVE_KV_BITS"] == "8"
    assert variables["PENSIEVE_WIRED"] == "true"
    assert variables["PENSIEVE_API_KEY"] == own.key != "users"
    assert variables["PENSIEVE_HOME"] == str(home)
    assert (flags.host, flags.model, flags.device) == ("127.0.0.1", "/models/tiny", "cpu")
    assert flags.port != 1234
    assert "PENSIEVE_KV_BITS" not in os.environ


def test_error_ends_the_server(home: Path) -> None:
    own = own_server(home, Commands(home))
    with suppress(ZeroDivisionError), own.folder():
        own.start("off")
        _ = 1 / 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_server(number: signal.Signals, home: Path) -> None:
    own = own_server(home, Commands(home))
    before = signal.getsignal(number)

    def interrupted() -> None:
        with own.folder():
            own.start("off")
            signal.raise_signal(number)

    with pytest.raises(SystemExit) as ended:
        interrupted()
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) == before


def test_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "bench"
    own = own_server(home, Commands(home))
    with (
        server_lock.acquire(under_home(home)) as is_ours,
        pytest.raises(MachineError, match="Another") as refused,
        own.folder(),
    ):
        pass
    assert is_ours
    assert home.exists()
    assert f"PENSIEVE_HOME={home} pensieve stop --force" in (refused.value.hint or "")


def test_remains_of_a_killed_run_are_removed(home: Path) -> None:
    (home / "prefixes").mkdir(parents=True)
    own = own_server(home, Commands(home))
    with own.folder():
        assert not (home / "prefixes").exists()
