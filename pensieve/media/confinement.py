"""The limits of a process that decodes one file of a client, which may be hostile.

A file that exceeds them ends its process and nothing else. After `close_doors` it opens neither
files nor connections: no descriptor is left for them. Called by program.py.
"""

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Limits:
    # WebP of 32 million pixels takes 700 MB, eight million characters of a PDF 7 s (2026-12-01,
    # x86-64).
    memory_bytes: int = 768 * 1024**2
    cpu_s: int = 20
    wall_s: int = 60  # also of a process whose server is gone


def limit_work(limits: Limits, platform: str = sys.platform) -> None:
    """Limit memory and time; the kernel ends the process at the limit of time."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s))
    signal.alarm(limits.wall_s)
    if platform == "darwin":
        # macOS accepts a limit of the address space and does not enforce it.
        watch_memory(limits.memory_bytes, _peak_bytes, os._exit)
    else:
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))


def close_doors() -> None:
    """Allow no new descriptor, no bytes in files, no other process. Imports are over then."""
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))


def watch_memory(
    max_bytes: int, peak_bytes: Callable[[], int], end: Callable[[int], object]
) -> threading.Thread:
    """Call `end` once the process has used more, within a hundredth of a second."""

    def watch() -> None:
        while peak_bytes() <= max_bytes:
            time.sleep(_LOOK_S)
        end(1)

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    return thread


def _peak_bytes() -> int:
    """Return the most memory that the process has had; macOS counts bytes, Linux kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
