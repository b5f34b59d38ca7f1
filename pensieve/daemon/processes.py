"""Identify processes by id together with start time, since ids are reused; measure their memory.

Reads /proc on Linux; libproc on macOS, and ps(1) for what libproc does not report.
"""

import calendar
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pensieve.daemon import libproc

GONE = frozenset("ZXx")

# Process ids with their parents and their bytes of memory.
Table = Mapping[int, tuple[int, int]]


def start_of(pid: int, platform: str = sys.platform) -> str | None:
    """Return the start of this process as one token; None if it has ended. Compare by `is_running`.

    A zombie counts as ended: it runs nothing and only waits for its parent to read its exit code.
    """
    if platform == "linux":
        return _start_in_proc(pid)
    return start_by_libproc(pid, libproc.load()) or _start_by_ps(pid)


def is_running(pid: int, start: str, platform: str = sys.platform) -> bool:
    """Whether the process with this start still runs.

    ps reports seconds and libproc microseconds, and the two starts may come from different ones.
    """
    now = start_of(pid, platform)
    return now is not None and (
        now == start or now.startswith(f"{start}.") or start.startswith(f"{now}.")
    )


def memory_of(pid: int, platform: str = sys.platform) -> int:
    """Return the memory of the process and its descendants in bytes; 0 if it has ended.

    On macOS this is the physical footprint, as Activity Monitor shows it: the resident size lacks
    what the GPU writes.
    """
    if platform == "linux":
        return _sum_of_tree(pid, dict(_memory_in_proc()))
    return memory_by_libproc(pid, libproc.load()) or _sum_of_tree(pid, _memory_by_ps())


def command_of(pid: int, platform: str = sys.platform) -> list[str]:
    """Return the command line; empty if it cannot be read."""
    if platform == "linux":
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            return [os.fsdecode(each) for each in line.rstrip(b"\0").split(b"\0") if each]
        return []
    return _run_ps("-o", "command=", "-p", str(pid)).split()


def start_by_libproc(pid: int, library: libproc.LibProc | None) -> str | None:
    """Return seconds since 1970, to the microsecond; None if libproc does not know the process."""
    info = library.info(pid) if library else None
    if info is None or info.status == libproc.ZOMBIE:
        return None
    return f"{info.start_s}.{info.start_us:06}"


def memory_by_libproc(pid: int, library: libproc.LibProc | None) -> int:
    """Return the footprint of the process and its descendants; 0 if libproc does not know it."""
    if library is None:
        return 0
    infos = [info for each in library.pids() if (info := library.info(each))]
    parents = {info.pid: (info.parent, 0) for info in infos}
    return sum(library.footprint(each) for each in _tree_of(pid, parents))


def read_start(line: str) -> str | None:
    """Parse a line of `ps -o stat=,lstart=` in UTC to seconds since 1970; None for a zombie or an
    empty line.
    """
    state, _, start = line.partition(" ")
    if not state or state[0] in GONE:
        return None
    timestamp = " ".join(start.split())
    try:
        return str(calendar.timegm(time.strptime(timestamp, "%a %b %d %H:%M:%S %Y")))
    except ValueError:
        return timestamp


def read_memory(lines: str) -> Table:
    """Parse the output of `ps -axo pid=,ppid=,rss=`; lines that are not three numbers are
    skipped.
    """
    table: dict[int, tuple[int, int]] = {}
    for line in lines.splitlines():
        with suppress(ValueError):
            pid, parent, kilobytes = map(int, line.split())
            table[pid] = parent, kilobytes * 1024
    return table


def _tree_of(pid: int, table: Table) -> list[int]:
    tree = [pid]
    for each in tree:
        tree += [child for child, (parent, _) in table.items() if parent == each]
    return [each for each in tree if each in table]


def _sum_of_tree(pid: int, table: Table) -> int:
    return sum(table[each][1] for each in _tree_of(pid, table))


def _start_in_proc(pid: int) -> str | None:
    """Read fields 3 (state) and 22 (start, in clock ticks since boot) of proc_pid_stat(5).

    Fields are counted after the name in brackets, which can contain blanks.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = fields.rpartition(")")[2].split()
    return None if state in GONE else rest[18]


def _memory_in_proc() -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield process ids with their parents (field 4 of proc_pid_stat(5)) and resident bytes
    (24).
    """
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
            fields = stat.rpartition(")")[2].split()
            yield int(process.name), (int(fields[1]), int(fields[21]) * page_bytes)


def _memory_by_ps() -> Table:
    return read_memory(_run_ps("-axo", "pid=,ppid=,rss="))


def _start_by_ps(pid: int) -> str | None:
    return read_start(_run_ps("-o", "stat=,lstart=", "-p", str(pid)))


def _run_ps(*arguments: str) -> str:
    """Run ps with a fixed locale and time zone, because `lstart` depends on both."""
    import subprocess

    try:
        result = subprocess.run(  # noqa: S603 -- process ids and fixed column lists
            ["ps", *arguments],  # noqa: S607 -- in the PATH that is set below
            capture_output=True,
            text=True,
            errors="replace",
            timeout=5,
            check=False,
            env={"LC_ALL": "C", "TZ": "UTC", "PATH": "/bin:/usr/bin"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()
