"""Reads the level of memory pressure from macOS, for memory_relief.py.

By sysctl and not by a child process: this process may hold gigabytes, and a fork would copy its
page tables.
"""

import ctypes
import sys
from collections.abc import Callable
from typing import Any

# The kernel's own numbers (XNU, bsd/kern/kern_memorystatus_notify.c; not run on a Mac).
NORMAL, WARNING, CRITICAL = 1, 2, 4
_NAME = b"kern.memorystatus_vm_pressure_level"

ReadPressure = Callable[[], int]


def _libc() -> Any:
    return ctypes.CDLL(None)


def pressure_reader(
    platform: str = sys.platform, libc_of: Callable[[], Any] = _libc
) -> ReadPressure | None:
    """Return a reader of the pressure level; None on other systems."""
    if platform != "darwin":
        return None
    libc = libc_of()

    def read() -> int:
        level = ctypes.c_int(NORMAL)
        size = ctypes.c_size_t(ctypes.sizeof(level))
        has_failed = libc.sysctlbyname(
            _NAME, ctypes.byref(level), ctypes.byref(size), None, ctypes.c_size_t(0)
        )
        return NORMAL if has_failed else level.value

    return read
