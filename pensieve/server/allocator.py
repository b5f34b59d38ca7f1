"""Configures glibc's allocator for this process; `run` calls it once before the server listens.

By default glibc, after the first large body, allocates the next ones from per-thread heaps and keeps
them, and `malloc_trim` does not reach the top of such a heap: 8 requests of 31 MiB at once left 186
to 248 MiB in a real server, with these settings 2 to 3 (2026-11-30, Linux, glibc 2.36). macOS has no
`mallopt`; what it keeps was not measured.
"""

import ctypes
from typing import Any

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 1 << 20


def return_large_allocations(libc: Any = None) -> None:
    """Allocate blocks of `LARGE_BYTES` and more with mmap. Freeing one returns it to the system."""
    libc = libc or ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
