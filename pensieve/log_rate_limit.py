"""Limit how often one kind of warning is logged, so that a frequent fault does not fill the log.

asyncio, for example, logs 2000 tracebacks at once while accept() fails (2026-11-30, CPython 3.11).
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

PERIOD_S = 10.0
# Per kind and period.
MAX_LINES = 5
MAX_KINDS = 256


@dataclass(slots=True)
class _Period:
    began_at: float
    lines: int = 0
    suppressed: int = 0


class LogRateLimit(logging.Filter):
    """Passes at most `MAX_LINES` warnings and errors of one kind per period.

    The first one of a later period reports how many were suppressed.
    """

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
            if period.suppressed:
                record.msg = f"{record.getMessage()} ({period.suppressed} more like it before)"
                record.args = None
            period.began_at, period.lines, period.suppressed = now, 0, 0
        if period.lines < MAX_LINES:
            period.lines += 1
            return True
        period.suppressed += 1
        return False

    def _period_of(self, record: logging.LogRecord, now: float) -> _Period:
        """Group records by message template, logger, level and exception type."""
        cause = record.exc_info[0] if record.exc_info else None
        kind = (record.name, record.levelno, record.msg, cause)
        if kind not in self._periods and len(self._periods) == MAX_KINDS:
            self._periods.clear()
        return self._periods.setdefault(kind, _Period(now))
