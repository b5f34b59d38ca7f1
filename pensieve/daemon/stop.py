"""End the server so that no process and no file of it remains."""

import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass

from pensieve.daemon import server_lock
from pensieve.daemon.processes import is_running
from pensieve.daemon.server_lock import Holder
from pensieve.daemon.server_record import ServerRecord, current
from pensieve.errors import StopFailedError
from pensieve.paths import Paths

POLL_S = 0.05
# The server gives open answers 15 s to finish (server/http/uvicorn_server.py), then ends them.
TIMEOUT_S = 30.0
RECORD_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class StoppedServer:
    pid: int
    service: str = ""  # launchd's name if it was Homebrew's service and had a readable record


def stop(paths: Paths, *, is_forced: bool, timeout_s: float = TIMEOUT_S) -> StoppedServer | None:
    """End this home's server and remove its files; return None if nothing ran.

    `is_forced`: send SIGKILL to it and its children instead of SIGTERM. Raises `StopFailedError` if
    it does not end.
    """
    server = _find(paths, min(timeout_s, RECORD_TIMEOUT_S))
    if server is None:
        server_lock.remove_stale(paths)
        return None
    _signal(server.pid, is_forced=is_forced)
    if not _is_gone(server, timeout_s):
        raise StopFailedError(
            f"The server (pid {server.pid}) has not ended after {timeout_s:.0f} s.",
            hint="End it at once; open answers are cut off:\n  pensieve stop --force",
        )
    server_lock.remove_stale(paths)
    return StoppedServer(server.pid, server.service if isinstance(server, ServerRecord) else "")


def end_child(child: subprocess.Popen[bytes], paths: Paths, timeout_s: float = 10.0) -> None:
    """End a background server that this process started; kill it after `timeout_s` or on Ctrl-C."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout_s)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    server_lock.remove_stale(paths)


def _find(paths: Paths, timeout_s: float) -> ServerRecord | Holder | None:
    """Find the server by its record, else by its lock, in which it writes its process id."""
    deadline = time.monotonic() + timeout_s
    while server_lock.is_held(paths):
        if server := current(paths) or server_lock.holder(paths):
            return server
        if time.monotonic() > deadline:
            raise StopFailedError(
                "A server holds the lock but has written neither a record nor its process id.",
                hint=f"Find the process that holds it:\n  lsof {shlex.quote(str(paths.lock_file))}",
            )
        time.sleep(POLL_S)
    return None


def _signal(pid: int, *, is_forced: bool) -> None:
    with suppress(ProcessLookupError):
        if not is_forced:
            os.kill(pid, signal.SIGTERM)
        elif os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def _is_gone(server: ServerRecord | Holder, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while is_running(server.pid, server.process_start):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
