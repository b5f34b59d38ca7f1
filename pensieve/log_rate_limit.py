"""Keeps a fault that comes thousands of times a second from filling the log and turning over what else it says.

asyncio, for one, logs 2 000 tracebacks at once where no connection can be accepted (2026-11-30, CPython 3.11).
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

PERIOD_S = 10.0
# Of one kind, in one period.
MAX_LINES = 5
MAX_KINDS = 256


@dataclass(slots=True)
class _Period:
    began_at: float
    lines: int = 0
    held_back: int = 0


class LogRateLimit(logging.Filter):
    """Of warnings and errors of one kind lets a few through in a period; the next one after it says how many it held back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._periods: dict[tuple[object, ...], _Period] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now = self._clock()
        period = self._period_of(record, now)
        if now - period.began_at >= PERIOD_S:
            if period.held_back:
                record.msg = f"{record.getMessage()} ({period.held_back} more like it before)"
                record.args = None
            period.began_at, period.lines, period.held_back = now, 0, 0
        if period.lines < MAX_LINES:
            period.lines += 1
            return True
        period.held_back += 1
        return False

    def _period_of(self, record: logging.LogRecord, now: float) -> _Period:
        """A kind is what is said, before its values are put in, and of which exception."""
        cause = record.exc_info[0] if record.exc_info else None
        kind = (record.name, record.levelno, record.msg, cause)
        if kind not in self._periods and len(self._periods) == MAX_KINDS:
            self._periods.clear()
        return self._periods.setdefault(kind, _Period(now))
