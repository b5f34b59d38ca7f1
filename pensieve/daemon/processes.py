"""Which process is which: a process id together with its start, since ids are used again."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

GONE = frozenset("ZXx")


def start_of(pid: int) -> str | None:
    """A word that tells this process from any other that ever has its id; None where it is gone.

    A zombie is gone: it runs nothing and waits for its parent to read its exit code.
    """
    return _start_in_proc(pid) if sys.platform == "linux" else _start_by_ps(pid)


def command_of(pid: int) -> list[str]:
    """The command line; empty where it cannot be read."""
    if sys.platform == "linux":
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            return [os.fsdecode(word) for word in line.rstrip(b"\0").split(b"\0") if word]
        return []
    return _ps(pid, "command=").split()


def _start_in_proc(pid: int) -> str | None:
    """Fields 3 (state) and 22 (start, in clock ticks since boot) of proc_pid_stat(5), past the name in brackets."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = fields.rpartition(")")[2].split()
    return None if state in GONE else rest[18]


def _start_by_ps(pid: int) -> str | None:
    state, _, start = _ps(pid, "stat=,lstart=").partition(" ")
    return None if not state or state[0] in GONE else " ".join(start.split())


def _ps(pid: int, columns: str) -> str:
    """`lstart` is written in the locale's words and the zone's time, so both are set."""
    command = ["ps", "-o", columns, "-p", str(pid)]
    try:
        done = subprocess.run(  # noqa: S603 -- a process id and two fixed column lists
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=5,
            check=False,
            env={"LC_ALL": "C", "TZ": "UTC", "PATH": "/bin:/usr/bin"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
