"""Settings of glibc's allocator for this process, called once before the server listens.

Without them glibc learns from the first large body to take the next ones from heaps of its threads
and keeps those: 20 bodies of 31 MiB left 160 to 720 MB until the server ended, and `malloc_trim`
does not reach the top of such a heap. With them 1 MB is left (2026-11-30, Linux, glibc 2.36). macOS
gives large allocations back by itself.
"""

import ctypes
from typing import Any

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 1 << 20


def return_large_allocations(libc: Any = None) -> None:
    """Take allocations of `LARGE_BYTES` and more from the system, to which they return when freed."""
    libc = libc or ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
