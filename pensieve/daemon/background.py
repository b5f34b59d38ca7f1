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
from pathlib import Path

from pensieve.daemon import lock
from pensieve.daemon.folders import make_private, open_private
from pensieve.daemon.health import Health, ask
from pensieve.daemon.record import ServerRecord, current
from pensieve.daemon.stop import end_child
from pensieve.errors import StartFailedError
from pensieve.isolation import python
from pensieve.paths import Paths
from pensieve.settings import Flags

POLL_S = 0.2
SHORT_POLL_S = 0.02
PATIENCE_S = 600.0
LOG_LINES = 12
LOG_BYTES = 16384
# What a command's exit code says by itself (`pensieve help exit-codes`).
MODEL_DAMAGED = 65
TELLING_CODES = frozenset({MODEL_DAMAGED, 69, 73, 78})
LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND

# Is told how far a server is that is waited for: a word or more, not a sentence.
Show = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Answering:
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
    patience_s: float = PATIENCE_S,
    show: Show = lambda _: None,
) -> Answering:
    """Start `command` as the background server and wait until it answers; `show` is told again and again how far it is.

    Raises `StartFailedError` with its last words where it ends, fails or is not ready after `patience_s`.
    """
    with _spawned(command, paths) as (child, log_start):
        answering = _wait(child, paths, log_start, patience_s, show)
        child.returncode = (
            0  # let go: it outlives us, and Popen would warn that nobody waited for it
        )
        return answering


def launch_and_leave(command: Sequence[str], paths: Paths) -> int:
    """Start `command` as the background server and wait until it is one, by its lock, and no longer; its process id.

    So `stop` finds it from now on. Raises `StartFailedError` where it ends before.
    """
    with _spawned(command, paths) as (child, log_start):
        while child.poll() is None and not lock.is_held(paths):
            time.sleep(SHORT_POLL_S)
        if child.returncode:
            raise _failure(_ending(child.returncode), paths, log_start, child.returncode)
        child.returncode = 0
        return child.pid


def wait_for_other(
    paths: Paths, patience_s: float = PATIENCE_S, show: Show = lambda _: None
) -> Answering | None:
    """The server that runs already, once it answers; None where it ends before."""

    def pause() -> bool:
        time.sleep(POLL_S)
        return lock.is_held(paths)

    return _until_settled(paths, pause, patience_s, show)


def last_words(log: Path, start: int = 0) -> str:
    """The last lines that were written to `log` from byte `start` on."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - LOG_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join(line for line in lines[-LOG_LINES:] if line.strip())
    return ""


@contextmanager
def _spawned(
    command: Sequence[str], paths: Paths
) -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """The child, and how long the log was before it. Whatever ends the block early ends the child."""
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
            yield child, log_start
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
    child: subprocess.Popen[bytes], paths: Paths, log_start: int, patience_s: float, show: Show
) -> Answering:
    def pause() -> bool:
        with suppress(subprocess.TimeoutExpired):
            child.wait(POLL_S)
        return child.returncode is None

    found = _until_settled(paths, pause, patience_s, show, pid=child.pid)
    if found is None and child.returncode == 0:
        # It found the lock taken: another start was quicker.
        found = wait_for_other(paths, patience_s, show)
    if found is None:
        raise _failure(_ending(child.returncode), paths, log_start, child.returncode)
    if not found.health.is_well:
        raise _failure_of_health(found.health, paths, log_start, patience_s)
    return Answering(found.record, found.health, is_new=found.record.pid == child.pid)


def _until_settled(
    paths: Paths,
    pause: Callable[[], bool],
    patience_s: float,
    show: Show,
    pid: int | None = None,
) -> Answering | None:
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
            return Answering(record, health, is_new=False)
        show((health.detail or health.status).rstrip(".") if health else "starting")
        if is_late or not pause():
            return None


def _ending(code: int | None) -> str:
    if code is None:
        return "The server did not begin to listen in time."
    return f"The server ended while starting ({_how(code)})."


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _trouble(health: Health, patience_s: float) -> str:
    if health.status == "failed":
        return health.detail or "The engine has failed and gives no reason."
    return f"The server is not ready after {patience_s:.0f} s ({health.detail or health.status})."


def _failure_of_health(
    health: Health, paths: Paths, log_start: int, patience_s: float
) -> StartFailedError:
    trouble = _trouble(health, patience_s)
    if not health.is_model_at_fault:
        return _failure(trouble, paths, log_start)
    return StartFailedError(
        trouble, hint="Choose another model:\n  pensieve models", exit_code=MODEL_DAMAGED
    )


def _failure(
    message: str, paths: Paths, log_start: int, code: int | None = None
) -> StartFailedError:
    """What the log ends with is told too, but for the lines that say what `message` says already."""
    words = last_words(paths.server_log, log_start)
    if code in TELLING_CODES and (told := _own_words(words)):
        message, hint = told
        return StartFailedError(message, hint=hint, exit_code=code or 1)
    lines = (line for line in words.splitlines() if message not in line)
    indented = "".join(f"\n  | {line}" for line in lines)
    return StartFailedError(
        message,
        hint=f"Its log, {paths.server_log}, ends:{indented or ' (empty)'}",
        exit_code=code if code in TELLING_CODES else 1,
    )


def _own_words(words: str) -> tuple[str, str | None] | None:
    """The error and its hint with which a server ends its log (cli/output.py writes them)."""
    _, mark, told = f"\n{words}".rpartition("\nError: ")
    message, _, hint = told.partition("\n")
    return (message, hint or None) if mark else None
