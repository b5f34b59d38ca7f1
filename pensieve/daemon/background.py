"""Starting the server in the background and waiting until it answers.

The server is the same program in the foreground, in a session of its own: what it says goes to the log file, and
the terminal's Ctrl-C does not reach it. Whatever ends the waiting early ends the server too.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pensieve.daemon import lock
from pensieve.daemon.folders import make_private, open_private
from pensieve.daemon.health import Health, ask
from pensieve.daemon.record import ServerRecord, current
from pensieve.daemon.stop import end_child
from pensieve.errors import StartFailedError
from pensieve.paths import Paths
from pensieve.settings import Device, Settings

POLL_S = 0.2
PATIENCE_S = 600.0
LOG_LINES = 12
LOG_BYTES = 16384


@dataclass(frozen=True, slots=True)
class Answering:
    """A server that answers. `is_new` False: it was there before, or another start was quicker."""

    record: ServerRecord
    health: Health
    is_new: bool


def server_command(settings: Settings, device: Device) -> list[str]:
    """The command line of a foreground server with these settings. The key stays in the environment.

    `-P` keeps the folder one happens to stand in off the import path.
    """
    options = {
        "--model": settings.model,
        "--device": device,
        "--host": settings.host,
        "--port": str(settings.port),
    }
    flags = [word for option in options.items() for word in option]
    return [sys.executable, "-P", "-m", "pensieve", "start", "--foreground", *flags]


def launch(command: Sequence[str], paths: Paths, patience_s: float = PATIENCE_S) -> Answering:
    """Start `command` as the background server and wait until it answers.

    Raises `StartFailedError` with its last words where it ends, fails or is not ready after `patience_s`.
    """
    make_private(paths.state)
    make_private(paths.logs)
    log = open_private(paths.server_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        log_start = os.fstat(log).st_size
        child = subprocess.Popen(  # noqa: S603 -- our own interpreter and flags
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)
    try:
        answering = _wait(child, paths, log_start, patience_s)
    except BaseException:
        end_child(child, paths)
        raise
    child.returncode = 0  # let go: it outlives us, and Popen would warn that nobody waited for it
    return answering


def wait_for_other(paths: Paths, patience_s: float = PATIENCE_S) -> Answering | None:
    """The server that runs already, once it answers; None where it ends before."""

    def pause() -> bool:
        time.sleep(POLL_S)
        return lock.is_held(paths)

    return _until_settled(paths, pause, patience_s)


def last_words(log: Path, start: int = 0) -> str:
    """The last lines that were written to `log` from byte `start` on."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - LOG_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join(line for line in lines[-LOG_LINES:] if line.strip())
    return ""


def _wait(
    child: subprocess.Popen[bytes], paths: Paths, log_start: int, patience_s: float
) -> Answering:
    def pause() -> bool:
        with suppress(subprocess.TimeoutExpired):
            child.wait(POLL_S)
        return child.returncode is None

    found = _until_settled(paths, pause, patience_s, pid=child.pid)
    if found is None and child.returncode == 0:
        # It found the lock taken: another start was quicker.
        found = wait_for_other(paths, patience_s)
    if found is None:
        raise _failure(_ending(child.returncode), paths, log_start)
    if found.health.status != "ready":
        raise _failure(_trouble(found.health, patience_s), paths, log_start)
    return Answering(found.record, found.health, is_new=found.record.pid == child.pid)


def _until_settled(
    paths: Paths, pause: Callable[[], bool], patience_s: float, pid: int | None = None
) -> Answering | None:
    """Ask until the server is ready or failed, or time is up; None where `pause` says that it is gone.

    `pid`: that server and no other. A child that found the lock taken would still take it if the other one ended
    now, so it is waited for until it is gone itself.
    """
    deadline = time.monotonic() + patience_s
    while True:
        record = current(paths)
        if record and pid not in {None, record.pid}:
            record = None
        health = ask(record) if record else None
        is_late = time.monotonic() > deadline
        if record and health and (is_late or health.status in {"ready", "failed"}):
            return Answering(record, health, is_new=False)
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
        return f"The model does not load: {health.detail or 'no reason given'}"
    return f"The server is not ready after {patience_s:.0f} s ({health.detail or health.status})."


def _failure(message: str, paths: Paths, log_start: int) -> StartFailedError:
    words = last_words(paths.server_log, log_start)
    indented = "".join(f"\n  | {line}" for line in words.splitlines())
    return StartFailedError(
        message, hint=f"Its log, {paths.server_log}, ends:{indented or ' (empty)'}"
    )
