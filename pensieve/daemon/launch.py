"""Starting the server in the background and waiting until it answers.

The server is the same program in the foreground, in a session of its own: what it says goes to the log file, and
the terminal's Ctrl-C does not reach it. Whatever ends the waiting early ends the server too.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pensieve.daemon import server_lock
from pensieve.daemon.health_client import Health, ask
from pensieve.daemon.private_dirs import make_private, open_private
from pensieve.daemon.server_record import ServerRecord, current
from pensieve.daemon.start_failure import StartLog
from pensieve.daemon.stop import end_child
from pensieve.isolation import python
from pensieve.paths import Paths
from pensieve.settings.resolve import Flags

POLL_S = 0.2
SHORT_POLL_S = 0.02
TIMEOUT_S = 600.0
LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND

# Is told how far a server is that is waited for: a word or more, not a sentence.
Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers. `is_new` False: it was there before, or another start was quicker."""

    record: ServerRecord
    health: Health
    is_new: bool


def server_command(flags: Flags) -> list[str]:
    """The command line of a foreground server with these flags; all else it finds where this process found it."""
    given = {name.replace("_", "-"): str(value) for name, value in flags.given().items()}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    return python("-m", "pensieve", "start", "--foreground", *words)


def launch(
    command: Sequence[str],
    paths: Paths,
    patience_s: float = TIMEOUT_S,
    show: Show = lambda _: None,
) -> RunningServer:
    """Start `command` as the background server and wait until it answers; `show` is told again and again how far it is.

    Raises `StartFailedError` where it ends, fails or is not ready after `patience_s`.
    """
    with _spawned(command, paths) as (child, log):
        answering = _wait(child, paths, log, patience_s, show)
        child.returncode = (
            0  # let go: it outlives us, and Popen would warn that nobody waited for it
        )
        return answering


def launch_and_leave(command: Sequence[str], paths: Paths) -> int:
    """Start `command` as the background server and wait until it is one, by its lock, and no longer; its process id.

    So `stop` finds it from now on. Raises `StartFailedError` where it ends before.
    """
    with _spawned(command, paths) as (child, log):
        while child.poll() is None and not server_lock.is_held(paths):
            time.sleep(SHORT_POLL_S)
        if child.returncode:
            raise log.failure_of_exit(child.returncode)
        child.returncode = 0
        return child.pid


def wait_for_other(
    paths: Paths, patience_s: float = TIMEOUT_S, show: Show = lambda _: None
) -> RunningServer | None:
    """The server that runs already, once it answers; None where it ends before."""

    def pause() -> bool:
        time.sleep(POLL_S)
        return server_lock.is_held(paths)

    return _until_settled(paths, pause, patience_s, show)


@contextmanager
def _spawned(
    command: Sequence[str], paths: Paths
) -> Generator[tuple[subprocess.Popen[bytes], StartLog]]:
    """The child, and its part of the log. Whatever ends the block early ends the child."""
    make_private(paths.state)
    make_private(paths.logs)
    child = None
    with os.fdopen(open_private(paths.server_log, LOG_FLAGS), "ab") as log:
        try:
            log_start = os.fstat(log.fileno()).st_size
            with _interrupt_held_back():
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
def _interrupt_held_back() -> Generator[None]:
    """Ctrl-C counts when the block is left: in its middle there could be a child that nobody knows of."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if came:
            signal.raise_signal(signal.SIGINT)


def _wait(
    child: subprocess.Popen[bytes], paths: Paths, log: StartLog, patience_s: float, show: Show
) -> RunningServer:
    def pause() -> bool:
        with suppress(subprocess.TimeoutExpired):
            child.wait(POLL_S)
        return child.returncode is None

    found = _until_settled(paths, pause, patience_s, show, pid=child.pid)
    if found is None and child.returncode == 0:
        # It found the lock taken: another start was quicker.
        found = wait_for_other(paths, patience_s, show)
    if found is None:
        raise log.failure_of_exit(child.returncode)
    if not found.health.is_well:
        raise log.failure_of_health(found.health, patience_s)
    return RunningServer(found.record, found.health, is_new=found.record.pid == child.pid)


def _until_settled(
    paths: Paths,
    pause: Callable[[], bool],
    patience_s: float,
    show: Show,
    pid: int | None = None,
) -> RunningServer | None:
    """Ask until the server is ready or failed, or time is up; None where `pause` says that it is gone.

    `pid`: that server and no other. A child that found the lock taken would still take it if the
    other one ended now, so it is waited for until it is gone itself. The time that a server takes
    to fetch its model does not count, nor that in which a first worker shows that it gets on with
    loading it.
    """
    deadline = time.monotonic() + patience_s
    progress = ""
    while True:
        record = current(paths)
        if record and pid not in {None, record.pid}:
            record = None
        health = ask(record) if record else None
        before, progress = progress, health.detail if health and not health.restarts else ""
        if (record and record.phase == "fetching") or progress != before:
            deadline = time.monotonic() + patience_s
        is_late = time.monotonic() > deadline
        if record and health and (is_late or health.is_well or health.status == "failed"):
            return RunningServer(record, health, is_new=False)
        show((health.detail or health.status).rstrip(".") if health else "starting")
        if is_late or not pause():
            return None
