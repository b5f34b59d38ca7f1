"""Gives memory back that was not used for minutes, or that the system is short of. Pure.

After `IDLE_S` without work cached prefixes that are on disk go, and the buffers that MLX keeps.
Under memory pressure they go at once; prefixes that are not on disk follow once they are written,
or at once where nothing is written or the pressure is critical. Then sequences also run one at a
time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pensieve.engine.scheduling.prefix_cache import CachedPrefix, PrefixCache
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.worker.memory_pressure import CRITICAL, WARNING, ReadPressure

IDLE_S = 300.0
# Between two looks at the memory pressure.
WORKING_LOOK_S, IDLE_LOOK_S = 1.0, 30.0


def _nothing_is_stored(_: CachedPrefix) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class ReleasableMemory:
    """What can be given back, and how."""

    prefixes: PrefixCache
    clear_buffers: Callable[[], None]
    is_stored: Callable[[CachedPrefix], bool] = _nothing_is_stored
    is_storing: Callable[[], bool] = lambda: False  # what is not on disk will be soon


class MemoryRelief:
    """Owned by the worker's loop, which calls `step` at every turn."""

    def __init__(
        self,
        scheduler: Scheduler,
        holdings: ReleasableMemory,
        read_pressure: ReadPressure | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._holdings = holdings
        self._read_pressure = read_pressure
        self._clock = clock
        self._worked_s = clock()
        self._look_s = clock()
        self._has_buffers = True

    def step(self) -> float | None:
        """Release what is due; return the seconds until the next look.

        None: there is nothing more to release.
        """
        now_s, is_idle = self._clock(), self._scheduler.is_idle
        if not is_idle:
            self._worked_s, self._has_buffers = now_s, True
        looks_in_s = self._look_at_pressure(now_s, is_idle=is_idle)
        idle_left_s = self._worked_s + IDLE_S - now_s
        if idle_left_s > 0:
            return idle_left_s if looks_in_s is None else min(idle_left_s, looks_in_s)
        self._release(self._holdings.is_stored)
        return looks_in_s if self._holdings.prefixes.nbytes else None

    def _look_at_pressure(self, now_s: float, *, is_idle: bool) -> float | None:
        if self._read_pressure is None:
            return None
        pause_s = IDLE_LOOK_S if is_idle else WORKING_LOOK_S
        if (left_s := self._look_s + pause_s - now_s) > 0:
            return left_s
        self._look_s = now_s
        self._relieve(self._read_pressure())
        return pause_s

    def _relieve(self, level: int) -> None:
        self._scheduler.is_serial = level >= CRITICAL
        if level < WARNING:
            return
        self._has_buffers = True
        is_all = level >= CRITICAL or not self._holdings.is_storing()
        self._release((lambda _: True) if is_all else self._holdings.is_stored)

    def _release(self, is_expendable: Callable[[CachedPrefix], bool]) -> None:
        before = self._holdings.prefixes.nbytes
        self._holdings.prefixes.remove_if(is_expendable)
        if self._has_buffers or self._holdings.prefixes.nbytes < before:
            self._holdings.clear_buffers()
            self._has_buffers = False
