"""Process facts on macOS: recorded lines of ps, packed bytes of libproc, and the real ps if
installed.
"""

import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pensieve.daemon.libproc import ALL_PIDS, BSD_INFO, USAGE_V0, ZOMBIE, LibProc, load
from pensieve.daemon.processes import (
    command_of,
    is_running,
    memory_by_libproc,
    memory_of,
    read_memory,
    read_start,
    start_by_libproc,
    start_of,
)

RECORDED = Path(__file__).parents[1] / "recorded"
with_ps = pytest.mark.skipif(not shutil.which("ps"), reason="no ps here")


def packed_info(pid: int, parent: int, start: tuple[int, int], status: int = 2) -> bytes:
    """Pack a struct proc_bsdinfo by field, as in <sys/proc_info.h>."""
    ids = struct.pack("=5I", 0x4004, status, 0, pid, parent)
    users = struct.pack("=7I", 501, 20, 501, 20, 501, 20, 0)
    names = struct.pack("=16s32s", b"python3.14", b"Python")
    rest = struct.pack("=5Ii", 12, pid, 0, 0xFFFFFFFF, 0, 0)
    return ids + users + names + rest + struct.pack("=QQ", *start)


def packed_usage(footprint: int) -> bytes:
    """Pack a struct rusage_info_v0 by field, as in <sys/resource.h>."""
    counters = struct.pack("=7Q", 10**9, 10**8, 3, 4, 5, 6, 7)
    return bytes(range(16)) + counters + struct.pack("=3Q", footprint, 123, 0)


class Library:
    """libproc's C functions over packed structures."""

    def __init__(self, infos: dict[int, bytes], footprints: dict[int, int] | None = None) -> None:
        self._infos = infos
        self._footprints = footprints or {}

    def proc_pidinfo(self, pid: int, flavor: int, argument: int, buffer: Any, size: int) -> int:
        assert (flavor, argument, size) == (BSD_INFO, 0, 136)
        return self._fill(buffer, self._infos.get(pid, b""))

    def proc_pid_rusage(self, pid: int, flavor: int, buffer: Any) -> int:
        assert (flavor, len(buffer)) == (USAGE_V0, 96)
        if pid not in self._footprints:
            return -1
        self._fill(buffer, packed_usage(self._footprints[pid]))
        return 0

    def proc_listpids(self, kind: int, info: int, buffer: Any, size: int) -> int:
        assert (kind, info) == (ALL_PIDS, 0)
        pids = struct.pack(f"={len(self._infos)}i", *self._infos)
        return len(pids) if buffer is None else self._fill(buffer, pids)

    def _fill(self, buffer: Any, content: bytes) -> int:
        buffer[: len(content)] = content
        return len(content)


START = (1796027246, 1234)
FAMILY = {
    1: packed_info(1, 0, START),
    412: packed_info(412, 1, START),
    98246: packed_info(98246, 412, START),
    98250: packed_info(98250, 98246, START),
}


# libproc


def test_a_start_by_libproc_has_microseconds() -> None:
    assert start_by_libproc(98246, LibProc(Library(FAMILY))) == "1796027246.001234"


@pytest.mark.parametrize(
    "content",
    [b"", packed_info(7, 1, START, status=ZOMBIE), packed_info(7, 1, (0, 0)), bytes(100)],
    ids=["gone", "zombie", "zeros", "short"],
)
def test_a_process_that_libproc_does_not_describe_has_no_start(content: bytes) -> None:
    assert start_by_libproc(7, LibProc(Library({7: content}))) is None


def test_memory_by_libproc_is_the_footprint_of_a_process_and_of_what_it_started() -> None:
    footprints = {1: 10, 412: 10**9, 98246: 80_000_000, 98250: 9 * 10**9}
    library = LibProc(Library(FAMILY, footprints))
    assert memory_by_libproc(98246, library) == 9_080_000_000
    assert memory_by_libproc(98250, library) == 9_000_000_000
    assert memory_by_libproc(7, library) == 0


def test_other_users_processes_are_ignored() -> None:
    family = FAMILY | {98250: b""}
    library = LibProc(Library(family, {98246: 80_000_000}))
    assert memory_by_libproc(98246, library) == 80_000_000
    assert memory_by_libproc(98246, LibProc(Library({}))) == 0


def test_libproc_loads_only_on_macos() -> None:
    assert (load() is None) == (sys.platform != "darwin")


# ps


@pytest.mark.parametrize(
    ("line", "start"),
    [
        ("Ss   Mon Nov 30 08:27:26 2026", "1796027246"),
        ("S+   Tue Dec  1 18:05:09 2026", "1796148309"),
        ("Z    Mon Nov 30 08:27:26 2026", None),
        ("", None),
        ("S    lundi 30 nov.  2026", "lundi 30 nov. 2026"),
    ],
)
def test_a_start_is_parsed_from_ps(line: str, start: str | None) -> None:
    assert read_start(line) == start


def test_odd_lines_of_ps_are_skipped() -> None:
    table = read_memory((RECORDED / "ps_memory.txt").read_text())
    assert table == {
        1: (0, 21808 * 1024),
        412: (1, 9632 * 1024),
        98246: (412, 58112 * 1024),
        98250: (98246, 2483200 * 1024),
        98251: (98250, 1024 * 1024),
    }


@with_ps
def test_the_real_ps_reports_start_memory_and_command() -> None:
    pid = os.getpid()
    start = start_of(pid, "darwin")
    assert start is not None
    assert abs(time.time() - float(start)) < 86400
    assert memory_of(pid, "darwin") > 10_000_000
    assert Path(sys.executable).name in " ".join(command_of(pid, "darwin"))


@with_ps
def test_the_real_ps_ignores_zombies_and_counts_children() -> None:
    alone = memory_of(os.getpid(), "darwin")
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        assert 0 < memory_of(child.pid, "darwin") < alone
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert start_of(child.pid, "darwin") is None
    assert start_of(child.pid, "darwin") is None


@with_ps
def test_starts_in_seconds_and_microseconds_match() -> None:
    start = start_of(os.getpid(), "darwin")
    assert start is not None
    assert is_running(os.getpid(), start, "darwin")
    assert is_running(os.getpid(), f"{start}.001234", "darwin")
    assert not is_running(os.getpid(), f"{start}1", "darwin")
    assert not is_running(os.getpid(), "", "darwin")
