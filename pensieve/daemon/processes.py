"""Which process is which: a process id together with its start, since ids are used again."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GONE = frozenset("ZXx")


def start_of(pid: int) -> str | None:
    """A word that tells this process from any other that ever has its id; None where it is gone.

    A zombie is gone: it runs nothing and waits for its parent to read its exit code.
    """
    return _start_in_proc(pid) if sys.platform == "linux" else _start_by_ps(pid)


def memory_of(pid: int) -> int:
    """Resident bytes of the process and all that it started; 0 where it is gone."""
    table = dict(_memory_in_proc() if sys.platform == "linux" else _memory_by_ps())
    tree = [pid]
    for each in tree:
        tree += [child for child, (parent, _) in table.items() if parent == each]
    return sum(table[each][1] for each in tree if each in table)


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


def _memory_in_proc() -> Iterator[tuple[int, tuple[int, int]]]:
    """Process ids with their parents (field 4 of proc_pid_stat(5)) and resident pages (field 24)."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
            fields = stat.rpartition(")")[2].split()
            yield int(process.name), (int(fields[1]), int(fields[21]) * page_bytes)


def _memory_by_ps() -> Iterator[tuple[int, tuple[int, int]]]:
    for line in _run_ps("-axo", "pid=,ppid=,rss=").splitlines():
        pid, parent, kilobytes = map(int, line.split())
        yield pid, (parent, kilobytes * 1024)


def _start_by_ps(pid: int) -> str | None:
    state, _, start = _ps(pid, "stat=,lstart=").partition(" ")
    return None if not state or state[0] in GONE else " ".join(start.split())


def _ps(pid: int, columns: str) -> str:
    return _run_ps("-o", columns, "-p", str(pid))


def _run_ps(*words: str) -> str:
    """`lstart` is written in the locale's words and the zone's time, so both are set."""
    import subprocess

    try:
        done = subprocess.run(  # noqa: S603 -- process ids and fixed column lists
            ["ps", *words],  # noqa: S607 -- in the PATH that is set below
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
