"""Ending the server, so that no process and no file of its running remains."""

import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress

from pensieve.daemon import server_lock
from pensieve.daemon.processes import is_running
from pensieve.daemon.server_record import ServerRecord, current
from pensieve.errors import StopFailedError
from pensieve.paths import Paths

POLL_S = 0.05
# The server gives open answers 15 s to finish (server/http/uvicorn_server.py), then ends them.
TIMEOUT_S = 30.0
RECORD_TIMEOUT_S = 2.0


def stop(paths: Paths, *, is_forced: bool, patience_s: float = TIMEOUT_S) -> ServerRecord | None:
    """End this home's server and remove what it left; the record of what was ended, None where nothing ran.

    Forced: SIGKILL, for it and what it started, instead of SIGTERM. Raises `StopFailedError` where it lives on.
    """
    record = _find(paths, min(patience_s, RECORD_TIMEOUT_S))
    if record is not None:
        _signal(record, is_forced=is_forced)
        if not _is_gone(record, patience_s):
            raise StopFailedError(
                f"The server (pid {record.pid}) has not ended after {patience_s:.0f} s.",
                hint="End it at once; open answers are cut off:\n  pensieve stop --force",
            )
    server_lock.remove_stale(paths)
    return record


def end_child(child: subprocess.Popen[bytes], paths: Paths, patience_s: float = 10.0) -> None:
    """End a background server that this process started, gently first; at once where Ctrl-C comes meanwhile."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(patience_s)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    server_lock.remove_stale(paths)


def _find(paths: Paths, patience_s: float) -> ServerRecord | None:
    """A server that starts holds its lock a moment before it writes its record."""
    deadline = time.monotonic() + patience_s
    while (record := current(paths)) is None and server_lock.is_held(paths):
        if time.monotonic() > deadline:
            raise StopFailedError(
                "A server holds the lock but has left no record of itself.",
                hint=f"See who holds it:\n  lsof {shlex.quote(str(paths.lock_file))}",
            )
        time.sleep(POLL_S)
    return record


def _signal(record: ServerRecord, *, is_forced: bool) -> None:
    with suppress(ProcessLookupError):
        if not is_forced:
            os.kill(record.pid, signal.SIGTERM)
        elif os.getpgid(record.pid) == record.pid:
            os.killpg(record.pid, signal.SIGKILL)
        else:
            os.kill(record.pid, signal.SIGKILL)


def _is_gone(record: ServerRecord, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while is_running(record.pid, record.process_start):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
