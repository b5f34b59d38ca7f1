"""Give memory that was freed back to the system, after requests with large bodies.

The allocator keeps it for the next ones otherwise: glibc 160 MB of 20 bodies of 31 MiB for as long
as the server runs (2026-11, Linux). What macOS keeps counts as ours until memory is short.
"""

import asyncio
import ctypes
from collections.abc import Callable

# Objects of the last request go after its answer; the next burst may follow at once.
QUIET_S = 1.0


def give_back() -> None:
    """Give back what no allocation uses. Takes up to a tenth of a second for a gigabyte."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    elif hasattr(libc, "malloc_zone_pressure_relief"):
        libc.malloc_zone_pressure_relief(ctypes.c_void_p(None), ctypes.c_size_t(0))


class FreedMemory:
    """Gives it back once, a moment after the last call of `soon`. Owned by the event loop."""

    def __init__(self, quiet_s: float = QUIET_S, give_back: Callable[[], None] = give_back) -> None:
        self._quiet_s = quiet_s
        self._give_back = give_back
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Give it back in a moment."""
        loop = asyncio.get_running_loop()
        if self._timer:
            self._timer.cancel()
        self._timer = loop.call_later(self._quiet_s, loop.run_in_executor, None, self._give_back)
