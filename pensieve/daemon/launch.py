"""Start the server in the background and wait until it answers.

The server is the same program in the foreground, in a session of its own: its output goes to the
log file, and the terminal's Ctrl-C does not reach it. If waiting ends early, the server is ended
too.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from pensieve.daemon import server_lock
from pensieve.daemon.health_client import Health, ask
from pensieve.daemon.private_dirs import make_private, open_private
from pensieve.daemon.server_record import ServerRecord, current, require
from pensieve.daemon.start_failure import StartLog
from pensieve.daemon.stop import end_child
from pensieve.errors import SettingsError
from pensieve.isolation import python
from pensieve.paths import Paths
from pensieve.settings.resolve import Flags
from pensieve.settings.spec import KEYS

POLL_S = 0.2
SHORT_POLL_S = 0.02
TIMEOUT_S = 600.0
LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND

# Called repeatedly with the state of the awaited server: a short phrase, not a sentence.
Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RunningServer:
    record: ServerRecord
    health: Health
    is_new: bool  # False: it ran before, or another start was quicker


def server_command(flags: Flags) -> list[str]:
    """Return the command line of a foreground server with these flags.

    It resolves all other settings from the same sources as this process.
    """
    return python("-m", "pensieve", "start", "--foreground", *flags.as_arguments())


def flags_of(command: Sequence[str]) -> Flags:
    """Return the flags of a foreground server by its command line, as `server_command` or a person
    wrote it. What is no such flag is ignored.
    """
    arguments = [part for each in command for part in _split_option(each)]
    names = {f"--{each.name.replace('_', '-')}": each.name for each in fields(Flags)}
    given: dict[str, Any] = {}
    for option, value in pairwise(arguments):
        with suppress(KeyError, SettingsError):
            given[names[option]] = KEYS[names[option]].read(value, option)
    return Flags(**given)


def _split_option(argument: str) -> list[str]:
    """Return an option and its value apart. Of a switch, the value is in its name."""
    for prefix, value in (("--no-", "false"), ("--", "true")):
        name = argument.removeprefix(prefix).replace("-", "_")
        if argument.startswith(prefix) and name in KEYS and KEYS[name].kind is bool:
            return [f"--{name.replace('_', '-')}", value]
    return argument.split("=", 1) if argument.startswith("--") else [argument]


def launch(
    command: Sequence[str],
    paths: Paths,
    timeout_s: float = TIMEOUT_S,
    show: Show = lambda _: None,
) -> RunningServer:
    """Start `command` as the background server and wait until it answers.

    Raises `StartFailedError` if it ends, fails or is not ready after `timeout_s`.
    """
    with _spawned(command, paths) as (child, log):
        server = _wait(child, paths, log, timeout_s, show)
        # The server outlives this process; without a return code Popen warns about it.
        child.returncode = 0
        return server


def launch_detached(command: Sequence[str], paths: Paths) -> int:
    """Start `command` as the background server, wait only until it holds its lock; return its
    process id.

    From then on `stop` finds it. Raises `StartFailedError` if it ends before.
    """
    with _spawned(command, paths) as (child, log):
        while child.poll() is None and not server_lock.is_held(paths):
            time.sleep(SHORT_POLL_S)
        if child.returncode:
            raise log.failure_of_exit(child.returncode)
        child.returncode = 0
        return child.pid


def wait_for_other(
    paths: Paths, timeout_s: float = TIMEOUT_S, show: Show = lambda _: None
) -> RunningServer | None:
    """Wait for the server that runs already until it answers; None if it ends before.

    Raises `RecordUnreadableError` if its address is unknown.
    """
    if require(paths) is None:
        return None

    def pause() -> bool:
        time.sleep(POLL_S)
        return server_lock.is_held(paths)

    return _until_settled(paths, pause, timeout_s, show)


@contextmanager
def _spawned(
    command: Sequence[str], paths: Paths
) -> Generator[tuple[subprocess.Popen[bytes], StartLog]]:
    """Yield the child and its part of the log; end the child if the block raises."""
    make_private(paths.state)
    make_private(paths.logs)
    child = None
    with os.fdopen(open_private(paths.server_log, LOG_FLAGS), "ab") as log:
        try:
            log_start = os.fstat(log.fileno()).st_size
            with _interrupt_deferred():
                child = subprocess.Popen(  # noqa: S603 -- our own interpreter and flags
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            yield child, StartLog(paths.server_log, log_start)
        except BaseException:
            if child is not None:
                end_child(child, paths)
            raise


@contextmanager
def _interrupt_deferred() -> Generator[None]:
    """Deliver Ctrl-C after the block: within it a child could exist that no variable holds yet."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if received:
            signal.raise_signal(signal.SIGINT)


def _wait(
    child: subprocess.Popen[bytes], paths: Paths, log: StartLog, timeout_s: float, show: Show
) -> RunningServer:
    def pause() -> bool:
        with suppress(subprocess.TimeoutExpired):
            child.wait(POLL_S)
        return child.returncode is None

    server = _until_settled(paths, pause, timeout_s, show, pid=child.pid)
    if server is None and child.returncode == 0:
        # The lock was taken: another start was quicker.
        server = wait_for_other(paths, timeout_s, show)
    if server is None:
        raise log.failure_of_exit(child.returncode)
    if not server.health.is_well:
        raise log.failure_of_health(server.health, timeout_s)
    return RunningServer(server.record, server.health, is_new=server.record.pid == child.pid)


def _until_settled(
    paths: Paths,
    pause: Callable[[], bool],
    timeout_s: float,
    show: Show,
    pid: int | None = None,
) -> RunningServer | None:
    """Poll until the server is ready or failed, or time is up; None if `pause` reports its end.

    `pid`: wait for that server only. A child that found the lock taken still takes it if the other
    server ends now, so it is awaited until it ends itself. The deadline moves while the server
    fetches its model, and while a first worker reports progress with loading.
    """
    deadline = time.monotonic() + timeout_s
    progress = ""
    while True:
        record = current(paths)
        if record and pid not in {None, record.pid}:
            record = None
        health = ask(record) if record else None
        before, progress = progress, health.detail if health and not health.restarts else ""
        if (record and record.phase == "fetching") or progress != before:
            deadline = time.monotonic() + timeout_s
        is_late = time.monotonic() > deadline
        if record and health and (is_late or health.is_well or health.status == "failed"):
            return RunningServer(record, health, is_new=False)
        show((health.detail or health.status).rstrip(".") if health else "starting")
        if is_late or not pause():
            return None
