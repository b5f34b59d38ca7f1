"""Process facts from macOS's libproc(3), without running another program, also in a sandbox.

Reads the kernel's structures as bytes, so that recorded bytes test it on any system.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

LIBRARY = "/usr/lib/libproc.dylib"

# <sys/proc_info.h> and <libproc.h>; unchanged since macOS 10.9.
ALL_PIDS = 1
BSD_INFO = 3
USAGE_V0 = 0
ZOMBIE = 5
# Room for processes that start between the two calls; none of them is ours.
SPARE_PIDS = 64

# struct proc_bsdinfo: flags, status, xstatus, pid, ppid; uids, gids and names; start in seconds and
# microseconds.
_INFO = struct.Struct("=4xI4xII28x48x24xQQ")
# struct rusage_info_v0: uuid, seven counters, physical footprint, start and end.
_USAGE = struct.Struct("=16x56xQ16x")


class ProcessInfo(NamedTuple):
    status: int
    pid: int
    parent: int
    start_s: int  # since 1970
    start_us: int  # microseconds after `start_s`


class LibProc:
    """libproc's functions with Python values. `library`: its C functions, loaded by ctypes."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def info(self, pid: int) -> ProcessInfo | None:
        """Return None if the process has ended or is another user's."""
        content = bytearray(_INFO.size)
        if self._library.proc_pidinfo(pid, BSD_INFO, 0, _pointer(content), len(content)) != len(
            content
        ):
            return None
        info = ProcessInfo(*_INFO.unpack(content))
        return info if info.start_s else None

    def footprint(self, pid: int) -> int:
        """Return the bytes that Activity Monitor shows, with GPU and compressed memory; 0 if
        unknown.
        """
        content = bytearray(_USAGE.size)
        if self._library.proc_pid_rusage(pid, USAGE_V0, _pointer(content)) != 0:
            return 0
        return _USAGE.unpack(content)[0]

    def pids(self) -> Sequence[int]:
        """Return all process ids; empty if the kernel refuses."""
        expected = self._library.proc_listpids(ALL_PIDS, 0, None, 0)
        if expected <= 0:
            return ()
        content = bytearray(expected + SPARE_PIDS * 4)
        written = self._library.proc_listpids(ALL_PIDS, 0, _pointer(content), len(content))
        return struct.unpack_from(f"={max(0, written) // 4}i", content)


def load() -> LibProc | None:
    """Return None where there is no libproc, which only macOS has."""
    import ctypes

    try:
        library = ctypes.CDLL(LIBRARY)
        library.proc_pidinfo.argtypes = (
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_uint64,
            ctypes.c_void_p,
            ctypes.c_int,
        )
        library.proc_pid_rusage.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
        library.proc_listpids.argtypes = (
            ctypes.c_uint32,
            ctypes.c_uint32,
            ctypes.c_void_p,
            ctypes.c_int,
        )
    except (OSError, AttributeError):
        return None
    return LibProc(library)


def _pointer(content: bytearray) -> Any:
    """Return `content` as C's `void *`; it must live until the call returns."""
    import ctypes

    return (ctypes.c_char * len(content)).from_buffer(content)
