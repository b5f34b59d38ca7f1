"""Lock, record, port, start and stop of the server, for which a stand-in runs."""

import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from pensieve.daemon import private_dirs, server_lock
from pensieve.daemon.bind import (
    PortOwner,
    bind,
    bind_with_retry,
    both_loopbacks,
    find_owner,
    lsof_pid,
    read_listener,
)
from pensieve.daemon.health_client import Health, ask, read
from pensieve.daemon.launch import flags_of, launch, server_command, wait_for_other
from pensieve.daemon.processes import command_of, start_of
from pensieve.daemon.server_record import (
    Address,
    ServerRecord,
    current,
    own_record,
    publish,
    require,
)
from pensieve.daemon.start_failure import StartLog
from pensieve.daemon.stop import StoppedServer, stop
from pensieve.errors import (
    NotWritableError,
    PortInUseError,
    RecordUnreadableError,
    SettingsError,
    StartFailedError,
    StopFailedError,
)
from pensieve.paths import Paths, under_home
from pensieve.settings.resolve import Flags
from tests.cli.fake_server import stand_in_command, stand_ins_of
from tests.support.ports import has_ipv6

HERE = Address("127.0.0.1", 7777, "tiny", "cpu")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return under_home(tmp_path / "o'brien's home ü")


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def command(paths: Paths, port: int) -> Iterator[Callable[[str], list[str]]]:
    """Return a function for the command line of a stand-in; running ones are ended after the
    test.
    """
    yield lambda mode: stand_in_command(paths.state.parent, port, mode)
    stop(paths, is_forced=True)
    assert not stand_ins_of(paths.state.parent)


def files_of(paths: Paths) -> list[str]:
    return sorted(path.name for path in paths.state.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# the lock


def test_only_one_process_acquires_the_lock(paths: Paths) -> None:
    assert not server_lock.is_held(paths)
    with server_lock.acquire(paths) as first:
        assert first
        assert server_lock.is_held(paths)
        with server_lock.acquire(paths) as second:
            assert not second
    assert not server_lock.is_held(paths)


def test_releasing_the_lock_removes_its_file(paths: Paths) -> None:
    with server_lock.acquire(paths):
        assert files_of(paths) == ["server.lock"]
    assert files_of(paths) == []


def test_a_lock_on_an_unlinked_file_does_not_count(paths: Paths) -> None:
    with server_lock.acquire(paths) as first:
        assert first
        paths.lock_file.unlink()
        with server_lock.acquire(paths) as second:
            assert second
            assert server_lock.is_held(paths)


def test_a_killed_process_releases_the_lock_and_its_record_is_ignored(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    answering = launch(command("ready"), paths)
    os.kill(answering.record.pid, signal.SIGKILL)
    os.waitpid(answering.record.pid, 0)
    assert files_of(paths) == ["server.json", "server.lock"]
    assert not server_lock.is_held(paths)
    assert current(paths) is None
    server_lock.remove_stale(paths)
    assert files_of(paths) == []


def test_remove_stale_creates_nothing_in_a_missing_home(paths: Paths) -> None:
    server_lock.remove_stale(paths)
    assert not paths.state.exists()


def test_remove_stale_keeps_a_running_servers_files(paths: Paths) -> None:
    with server_lock.acquire(paths), publish(paths, own_record(HERE)):
        server_lock.remove_stale(paths)
        assert files_of(paths) == ["server.json", "server.lock"]


# the record


def test_the_record_exists_while_the_server_runs(paths: Paths) -> None:
    assert current(paths) is None
    with server_lock.acquire(paths), publish(paths, own_record(HERE)) as record:
        assert current(paths) == record
        assert record.pid == os.getpid()
        assert record.base_url == "http://127.0.0.1:7777"
        assert mode_of(paths.server_file) == 0o600
    assert files_of(paths) == []


def test_a_record_without_the_lock_is_ignored(paths: Paths) -> None:
    with server_lock.acquire(paths), publish(paths, own_record(HERE)):
        content = paths.server_file.read_text(encoding="utf-8")
    paths.server_file.write_text(content, encoding="utf-8")
    assert current(paths) is None


def test_a_record_with_a_reused_process_id_is_ignored(paths: Paths) -> None:
    with server_lock.acquire(paths), publish(paths, own_record(HERE)) as record:
        stored = json.loads(paths.server_file.read_text(encoding="utf-8"))
        stored["process_start"] = f"{record.process_start}0"
        paths.server_file.write_text(json.dumps(stored), encoding="utf-8")
        assert current(paths) is None


def test_unknown_fields_of_a_record_are_ignored(paths: Paths) -> None:
    with server_lock.acquire(paths), publish(paths, own_record(HERE)) as record:
        stored = json.loads(paths.server_file.read_text(encoding="utf-8"))
        paths.server_file.write_text(json.dumps(stored | {"mood": "good"}), encoding="utf-8")
        assert current(paths) == record


def test_a_lock_without_a_record_raises_with_a_pastable_command(paths: Paths) -> None:
    with server_lock.acquire(paths):
        paths.lock_file.write_bytes(b"")  # as earlier versions leave it
        with pytest.raises(StopFailedError, match="neither a record") as failure:
            stop(paths, is_forced=False, timeout_s=0)
    *_, command = (failure.value.hint or "").splitlines()
    assert shlex.split(command) == ["lsof", str(paths.lock_file)]


def test_a_record_that_is_a_link_is_ignored(paths: Paths, tmp_path: Path) -> None:
    """The record determines where clients send the key."""
    with server_lock.acquire(paths), publish(paths, own_record(HERE)):
        paths.server_file.rename(tmp_path / "planted")
        paths.server_file.symlink_to(tmp_path / "planted")
        assert current(paths) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"pid": 1}', "\x00", "[" * 50_000, '{"pid": ' * 9_000]
)
def test_a_damaged_record_is_ignored(paths: Paths, text: str) -> None:
    with server_lock.acquire(paths):
        paths.server_file.write_text(text, encoding="utf-8")
        assert current(paths) is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:7777"),
        ("::", "http://[::1]:7777"),
        ("::1", "http://[::1]:7777"),
        ("192.168.1.7", "http://192.168.1.7:7777"),
    ],
)
def test_a_server_on_every_address_is_reached_through_loopback(host: str, url: str) -> None:
    assert ServerRecord(1, "", host, 7777, "tiny", "cpu", 0.0, "").base_url == url


# processes


def test_a_reused_process_id_is_another_process() -> None:
    assert start_of(os.getpid()) == start_of(os.getpid())
    assert start_of(os.getpid()) != start_of(1)
    assert command_of(os.getpid())


def test_a_zombie_counts_as_ended() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "exit 0"], stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.read()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert start_of(child.pid) is None
    assert start_of(child.pid) is None


# folders and files


def test_folders_and_files_are_private_for_any_umask(paths: Paths) -> None:
    before = os.umask(0)
    try:
        with server_lock.acquire(paths), publish(paths, own_record(HERE)):
            private_dirs.make_private(paths.logs)
            modes = {p.name: mode_of(p) for p in paths.state.parent.rglob("*")}
    finally:
        os.umask(before)
    assert modes == {"state": 0o700, "logs": 0o700, "server.json": 0o600, "server.lock": 0o600}
    assert mode_of(paths.state.parent) == 0o700


def test_a_state_folder_that_is_a_link_is_refused(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "planted").mkdir()
    paths.state.parent.mkdir()
    paths.state.symlink_to(tmp_path / "planted")
    with (
        pytest.raises(NotWritableError, match="symbolic link") as refusal,
        server_lock.acquire(paths),
    ):
        pass
    assert refusal.value.exit_code == 73
    assert list((tmp_path / "planted").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_state_folder_of_another_user_is_refused(paths: Paths) -> None:
    private_dirs.make_private(paths.state)
    os.chown(paths.state, 12345, 12345)
    with pytest.raises(NotWritableError, match="another user"):
        private_dirs.make_private(paths.state)


def test_a_state_folder_that_is_a_file_is_refused(paths: Paths) -> None:
    paths.state.parent.mkdir()
    paths.state.touch()
    with pytest.raises(NotWritableError):
        private_dirs.make_private(paths.state)


def test_a_lock_file_that_is_a_link_is_not_followed(paths: Paths, tmp_path: Path) -> None:
    private_dirs.make_private(paths.state)
    (tmp_path / "precious").write_text("kept")
    paths.lock_file.symlink_to(tmp_path / "precious")
    with pytest.raises(NotWritableError), server_lock.acquire(paths):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


# the port


def test_a_free_port_is_bound_and_listens(port: int) -> None:
    with bind("127.0.0.1", port), socket.create_connection(("127.0.0.1", port)):
        pass
    with bind("localhost", port):
        pass


def test_a_recently_used_port_can_be_bound(port: int) -> None:
    with bind("127.0.0.1", port) as listener:
        client = socket.create_connection(("127.0.0.1", port))
        connection, _ = listener.accept()
        connection.close()
        client.close()
    with bind("127.0.0.1", port):
        pass


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "::"),
    ],
)
def test_a_taken_port_raises_with_owner_and_another_port(
    family: socket.AddressFamily, address: str, port: int
) -> None:
    with suppress(OSError), socket.socket(family) as listener:
        listener.bind((address, port))
        listener.listen()
        with pytest.raises(PortInUseError) as refusal:
            bind("127.0.0.1", port)
        assert f"Port {port} is in use by pid {os.getpid()}" in refusal.value.message
        assert f"pensieve start --port {port + 1}" in (refusal.value.hint or "")
        assert refusal.value.exit_code == 69
        return
    pytest.skip(f"no {address} on this machine")


def test_the_owner_of_a_port_is_found_by_process_and_command(port: int) -> None:
    assert find_owner(port) is None
    with bind("127.0.0.1", port):
        owner = find_owner(port)
    assert owner
    assert owner.pid == os.getpid()
    assert " ".join(owner.command).endswith(" ".join(sys.orig_argv[1:]))


@pytest.mark.skipif(not shutil.which("lsof"), reason="no lsof here")
def test_lsof_finds_the_owner(port: int) -> None:
    assert lsof_pid(port) is None
    with bind("127.0.0.1", port):
        assert lsof_pid(port) == os.getpid()


@pytest.mark.skipif(not shutil.which("lsof") or not shutil.which("ps"), reason="no lsof or ps")
def test_the_owner_is_found_by_lsof_and_ps(port: int) -> None:
    with bind("127.0.0.1", port):
        owner = find_owner(port, "darwin")
    assert owner
    assert owner.pid == os.getpid()
    assert Path(sys.executable).name in " ".join(owner.command)


@pytest.mark.parametrize(
    ("printed", "pid"),
    [
        ("p35711\nf7\n", 35711),
        ("p35711\nf7\nf8\np412\nf3\n", 35711),
        ("", None),
        ("lsof: no pwd entry for UID 501\np35711\nf7\n", 35711),
        ("panic\np412\n", 412),
    ],
)
def test_lsof_output_is_parsed(printed: str, pid: int | None) -> None:
    assert read_listener(printed) == pid


@pytest.mark.parametrize(
    ("command", "is_pensieve"),
    [
        (["/opt/x/bin/python3", "-E", "-P", "-m", "pensieve", "start", "--foreground"], True),
        (["/opt/x/bin/python3", "/opt/x/bin/pensieve", "start"], True),
        (["vim", "/home/me/pensieve"], False),
        (["python3", "-m", "http.server"], False),
        ([], False),
    ],
)
def test_a_pensieve_of_another_home_is_recognised(command: list[str], is_pensieve: bool) -> None:
    assert PortOwner(1, tuple(command)).is_pensieve is is_pensieve


def test_bind_with_retry_waits_for_a_short_bind_of_another_start(port: int) -> None:
    look = bind("127.0.0.1", port)
    closing = threading.Timer(0.2, look.close)
    closing.start()
    with bind_with_retry("127.0.0.1", port), pytest.raises(PortInUseError):
        bind_with_retry("127.0.0.1", port)
    closing.join()


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid", "a" * 300])
def test_a_foreign_host_address_is_refused(host: str, port: int) -> None:
    with pytest.raises(SettingsError, match="not an address of this machine"):
        bind(host, port)


# health


def test_answers_of_other_programs_are_unreachable() -> None:
    assert read({"status": "ready", "pid": 2}, pid=1).status == "unreachable"
    assert read({"status": "fine", "pid": 1}, pid=1).status == "unreachable"
    assert read(["ready"], pid=1).status == "unreachable"
    odd = read({"status": "ready", "pid": 1, "model": 7, "context_tokens": "many"}, pid=1)
    assert odd == Health("ready")


def test_an_ended_server_is_unreachable(port: int) -> None:
    health = ask(ServerRecord(1, "", "127.0.0.1", port, "tiny", "cpu", 0.0, ""))
    assert health.status == "unreachable"
    assert str(port) in health.detail


# starting and stopping


def test_the_server_command_has_the_flags_and_never_a_key() -> None:
    given = Flags(model="a b", port=9, idle_unload=0.5, speculation="off", require_key="on")
    command = server_command(given)
    assert command[1:5] == ["-E", "-P", "-m", "pensieve"]
    flags = ["--model", "a b", "--port", "9", "--idle-unload", "0.5", "--speculation", "off"]
    assert command[5:] == ["start", "--foreground", *flags, "--require-key", "on"]
    assert "api_key" not in Flags.__slots__


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        (["--show-content"], Flags(show_content=True)),
        (["--show-content=true", "--port", "9"], Flags(show_content=True, port=9)),
        (["--no-show-content", "--log-format=json"], Flags(show_content=False, log_format="json")),
    ],
)
def test_flags_are_read_from_a_command_line(options: list[str], flags: Flags) -> None:
    assert flags_of(["pensieve", "start", "--foreground", *options]) == flags
    assert flags_of(server_command(flags)) == flags


@pytest.mark.parametrize("mode", ["ready", "slow"])
def test_launch_returns_when_the_server_answers_and_stop_leaves_no_trace(
    mode: str, paths: Paths, command: Callable[[str], list[str]]
) -> None:
    answering = launch(command(mode), paths)
    assert answering.is_new
    assert answering.health.status == "ready"
    assert answering.record == current(paths)
    assert answering.record.log == str(paths.server_log)
    assert os.getsid(answering.record.pid) == answering.record.pid
    assert mode_of(paths.server_log) == 0o600
    stopped = stop(paths, is_forced=False)
    assert stopped == StoppedServer(answering.record.pid)
    assert start_of(answering.record.pid) is None
    assert files_of(paths) == []
    assert stop(paths, is_forced=False) is None


def test_wait_for_other_returns_the_running_server(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    first = launch(command("ready"), paths)
    other = wait_for_other(paths)
    assert other
    assert (other.record, other.is_new) == (first.record, False)


def test_a_second_start_returns_the_first_ones_server(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    first = launch(command("ready"), paths)
    second = launch(command("ready"), paths)
    assert (second.record, second.is_new) == (first.record, False)


def test_concurrent_starts_yield_one_server(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        starts = list(pool.map(lambda mode: launch(command(mode), paths), ["slow"] * 4))
    assert len({answering.record for answering in starts}) == 1
    assert [answering.is_new for answering in starts].count(True) == 1


def test_a_server_that_dies_while_starting_raises_with_its_log(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    private_dirs.make_private(paths.logs)
    paths.server_log.write_text("of another day\n")
    with pytest.raises(StartFailedError) as failure:
        launch(command("dies"), paths)
    assert "exit code 1" in failure.value.message
    assert "no luck today" in (failure.value.hint or "")
    assert "of another day" not in (failure.value.hint or "")
    assert str(paths.server_log) in (failure.value.hint or "")


def test_a_failed_engine_raises_and_its_server_is_ended(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    with pytest.raises(StartFailedError, match="weights are cursed") as failure:
        launch(command("fails"), paths)
    assert "weights are cursed" not in (failure.value.hint or ""), "said twice"
    assert files_of(paths) == []
    assert not server_lock.is_held(paths)


def test_an_error_of_the_server_is_quoted_alone(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    with pytest.raises(StartFailedError) as failure:
        launch(command("refuses"), paths)
    assert failure.value.message == "config.json is cursed."
    assert failure.value.hint == "Copy it again:\n  cp -R"
    assert failure.value.exit_code == 65


def test_a_model_that_does_not_load_has_the_exit_code_of_a_damaged_model(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    with pytest.raises(StartFailedError) as failure:
        launch(command("misfits"), paths)
    assert failure.value.message == "weights are cursed"
    assert failure.value.exit_code == 65


def test_a_server_that_never_becomes_ready_is_ended(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    with pytest.raises(StartFailedError, match="not ready after"):
        launch(command("never"), paths, timeout_s=2.0)
    assert files_of(paths) == []


def test_progress_with_loading_extends_the_deadline(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    # It loads for 3.6 s at least, and has this long to begin to listen.
    assert launch(command("large"), paths, timeout_s=3.0).health.status == "ready"


def test_ctrl_c_while_waiting_ends_the_started_server(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        launch(command("interrupts"), paths)
    assert files_of(paths) == []
    assert not server_lock.is_held(paths)


def test_a_server_that_ignores_sigterm_raises_and_force_ends_it(
    paths: Paths, command: Callable[[str], list[str]]
) -> None:
    answering = launch(command("stubborn"), paths)
    with pytest.raises(StopFailedError, match="has not ended") as failure:
        stop(paths, is_forced=False, timeout_s=0.2)
    assert "pensieve stop --force" in (failure.value.hint or "")
    assert start_of(answering.record.pid)
    assert stop(paths, is_forced=True) == StoppedServer(answering.record.pid)
    assert start_of(answering.record.pid) is None
    assert files_of(paths) == []


@pytest.mark.parametrize("is_missing", [True, False])
@pytest.mark.parametrize("is_forced", [True, False])
def test_a_server_with_a_damaged_record_is_named_by_start_and_ended_by_stop(
    *, is_missing: bool, is_forced: bool, paths: Paths, command: Callable[[str], list[str]]
) -> None:
    pid = launch(command("ready"), paths).record.pid
    if is_missing:
        paths.server_file.unlink()
    else:
        paths.server_file.write_bytes(paths.server_file.read_bytes()[:40])
    with pytest.raises(RecordUnreadableError, match=rf"\(pid {pid}\).*server\.json") as failure:
        require(paths, timeout_s=0)
    assert "pensieve restart" in (failure.value.hint or "")
    assert failure.value.exit_code == 69
    assert stop(paths, is_forced=is_forced) == StoppedServer(pid)
    assert start_of(pid) is None
    assert files_of(paths) == []


def test_the_process_id_in_a_lock_of_a_killed_server_is_not_a_holder(paths: Paths) -> None:
    with server_lock.acquire(paths):
        assert server_lock.holder(paths) == server_lock.Holder(
            os.getpid(), start_of(os.getpid()) or ""
        )
        for content in (f"{os.getpid()} 1", f"{os.getpid()}", "one two", "", "\xff"):
            paths.lock_file.write_text(content)
            assert server_lock.holder(paths) is None
    private_dirs.make_private(paths.state)
    paths.lock_file.write_text(f"{os.getpid()} {start_of(os.getpid())}")
    assert server_lock.holder(paths) is None


def test_stop_does_not_signal_a_reused_process_id(paths: Paths) -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as bystander:
        private_dirs.make_private(paths.state)
        record = ServerRecord(bystander.pid, "0", "127.0.0.1", 7777, "tiny", "cpu", 0.0, "")
        paths.server_file.write_text(
            json.dumps({name: getattr(record, name) for name in ServerRecord.__slots__})
        )
        assert stop(paths, is_forced=True) is None
        assert bystander.poll() is None
    assert files_of(paths) == []


def test_the_log_tail_is_short_and_readable(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %d \xff\n" % n for n in range(1000)))
    tail = StartLog(log, 0).log_tail().splitlines()
    assert tail[-1] == "line 999 \ufffd"
    assert len(tail) <= 12
    assert StartLog(tmp_path / "none", 0).log_tail() == ""


@pytest.mark.parametrize("code", [1, 65, 69, 78])
def test_a_servers_last_error_is_quoted_once(code: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    before = "Error: of another day\n"
    log.write_text(
        f"{before}pensieve serves tiny\n2026 ERROR the engine has failed: x\n"
        "Error: The port is taken.\nTake another one:\n  pensieve start --port 8\n"
    )
    failure = StartLog(log, len(before)).failure_of_exit(code)
    assert failure.message == "The port is taken."
    assert failure.hint == "Take another one:\n  pensieve start --port 8"
    assert failure.exit_code == code


@pytest.mark.parametrize(("code", "how"), [(-9, "signal 9"), (3, "exit code 3"), (None, "in time")])
def test_an_end_without_an_error_shows_the_log_tail(
    code: int | None, how: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text("Error: of another day\nno luck today\n")
    failure = StartLog(log, len("Error: of another day\n")).failure_of_exit(code)
    assert how in failure.message
    assert failure.hint == f"Its log, {log}, ends:\n  | no luck today"
    assert failure.exit_code == 1


def test_the_engines_reason_is_shown_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("2026 ERROR the engine has failed: The model does not load: bad shape\n")
    health = Health("failed", "The model does not load: bad shape")
    failure = StartLog(log, 0).failure_of_health(health, 9.0)
    assert failure.message == "The model does not load: bad shape"
    assert "|" not in str(failure.hint)
    assert "  pensieve doctor --verify" in str(failure.hint)
    failure = StartLog(log, 0).failure_of_health(Health("failed"), 9.0)
    assert "without a reason" in failure.message
    assert "bad shape" in str(failure.hint)


@pytest.mark.parametrize(("host", "other"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
def test_a_server_at_one_loopback_address_also_listens_at_the_other(host: str, other: str) -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 here")
    with bind(host, 0) as listener, both_loopbacks(listener) as listeners:
        port = listener.getsockname()[1]
        assert [each.getsockname()[:2] for each in listeners] == [(host, port), (other, port)]
        with socket.create_connection((other, port), 5):
            pass
    assert listeners[1].fileno() == -1


def test_a_taken_second_loopback_address_is_skipped_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 here")
    with bind("127.0.0.1", 0) as listener:
        address = ("::1", listener.getsockname()[1])
        with (
            socket.create_server(address, family=socket.AF_INET6),
            both_loopbacks(listener) as listeners,
        ):
            assert listeners == [listener]
    assert f"not listening at ::1 port {address[1]} (Address already in use)" in caplog.text


def test_a_server_for_other_machines_listens_only_at_its_address() -> None:
    with bind("0.0.0.0", 0) as listener, both_loopbacks(listener) as listeners:
        assert listeners == [listener]
