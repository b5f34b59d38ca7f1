"""Settings of glibc's allocator for this process, called once before the server listens.

Without them glibc learns from the first large body to take the next ones from heaps of its threads
and keeps those, and `malloc_trim` does not reach the top of such a heap: of 8 requests of 31 MiB at
once a real server kept 186 to 248 MiB, with them 2 to 3 (2026-11-30, Linux, glibc 2.36). What
macOS keeps was not measured; it has no `mallopt`.
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
