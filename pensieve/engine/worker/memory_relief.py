"""Releases memory after minutes of idleness and under memory pressure. Pure.

After `IDLE_S` without work it releases the cached prefixes that are also on disk, and MLX's
buffers. Under memory pressure it does so at once; prefixes that are not on disk follow once they
are written, or at once if nothing is being written or the pressure is critical. While it is
critical, sequences run one at a time.
"""

import math
import time
from collections.abc import Callable

from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from pensieve.engine.worker.memory_pressure import CRITICAL, WARNING, ReadPressure

IDLE_S = 300.0
# Between two checks of the memory pressure.
WORKING_CHECK_S, IDLE_CHECK_S = 1.0, 30.0


class MemoryRelief:
    """Owned by the worker's loop, which calls `step` at every turn."""

    def __init__(
        self,
        scheduler: Scheduler,
        prefix_cache: TieredPrefixCache,
        clear_buffers: Callable[[], None],  # MLX's
        read_pressure: ReadPressure | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._prefix_cache = prefix_cache
        self._clear_buffers = clear_buffers
        self._read_pressure = read_pressure
        self._clock = clock
        self._last_work_s = clock()
        self._last_check_s = -math.inf  # the first step checks, before anything is preloaded
        self._has_buffers = True

    def step(self) -> float | None:
        """Release what is due; return the seconds until the next check, None if all is released."""
        now_s, is_idle = self._clock(), self._scheduler.is_idle
        if not is_idle:
            self._last_work_s, self._has_buffers = now_s, True
        check_in_s = self._check_pressure(now_s, is_idle=is_idle)
        idle_in_s = self._last_work_s + IDLE_S - now_s
        if idle_in_s > 0:
            return idle_in_s if check_in_s is None else min(idle_in_s, check_in_s)
        self._release(self._prefix_cache.evict_stored)
        return check_in_s if self._prefix_cache.nbytes else None

    def _check_pressure(self, now_s: float, *, is_idle: bool) -> float | None:
        if self._read_pressure is None:
            return None
        pause_s = IDLE_CHECK_S if is_idle else WORKING_CHECK_S
        if (remaining_s := self._last_check_s + pause_s - now_s) > 0:
            return remaining_s
        self._last_check_s = now_s
        self._relieve(self._read_pressure())
        return pause_s

    def _relieve(self, level: int) -> None:
        self._scheduler.is_serial = level >= CRITICAL
        if level < WARNING:
            return
        self._has_buffers = True
        if level >= CRITICAL or not self._prefix_cache.is_storing:
            self._release(self._prefix_cache.evict_all)
        else:
            self._release(self._prefix_cache.evict_stored)

    def _release(self, evict: Callable[[], None]) -> None:
        before = self._prefix_cache.nbytes
        evict()
        if self._has_buffers or self._prefix_cache.nbytes < before:
            self._clear_buffers()
            self._has_buffers = False
