"""Findings about the machine, looked for only when someone asks, and not each time."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import anyio

from pensieve.server.activity.record import Clock
from pensieve.worker_threads import run_in_thread

_log = logging.getLogger("pensieve.server")

MAX_AGE_S = 60.0
Findings = Sequence[Mapping[str, str]]


class FindingsCache:
    """Owns the latest findings. `find` blocks; it runs in a thread."""

    def __init__(self, find: Callable[[], Findings], clock: Clock = time.monotonic) -> None:
        self._find = find
        self._clock = clock
        self._latest: Findings = ()
        self._found_at: float | None = None
        self._lock = anyio.Lock()

    async def latest(self) -> Findings:
        """Return findings that are at most a minute old."""
        async with self._lock:
            if self._found_at is None or self._clock() - self._found_at >= MAX_AGE_S:
                self._latest = await self._look()
                self._found_at = self._clock()
        return self._latest

    async def _look(self) -> Findings:
        try:
            return await run_in_thread(self._find)
        except Exception as error:  # noqa: BLE001 -- a broken check must not hide the history
            _log.warning("checking this machine failed: %s", type(error).__name__)
            return ()
