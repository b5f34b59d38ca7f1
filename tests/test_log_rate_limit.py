"""A fault that repeats thousands of times logs a few lines, and other records still pass."""

import logging

from pensieve.logs import MAX_KINDS, MAX_LINES, PERIOD_S, LogRateLimit


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(
    message: str, *values: object, level: int = logging.ERROR, error: Exception | None = None
) -> logging.LogRecord:
    cause = (type(error), error, None) if error else None
    return logging.LogRecord("asyncio", level, "", 0, message, values, cause)


def test_repeated_warnings_are_limited_and_counted_in_the_next_period() -> None:
    clock = Clock()
    damping = LogRateLimit(clock)
    flood = [record("accept failed: %s", number, error=OSError()) for number in range(26_000)]
    assert sum(map(damping.filter, flood)) == MAX_LINES
    clock.now += PERIOD_S
    later = record("accept failed: %s", "again", error=OSError())
    assert damping.filter(later)
    held_back = 26_000 - MAX_LINES
    assert later.getMessage() == f"accept failed: again ({held_back} more like it before)"
    clock.now += PERIOD_S
    last = record("accept failed: %s", "once", error=OSError())
    assert damping.filter(last)
    assert last.getMessage() == "accept failed: once"


def test_other_warnings_pass_during_a_flood() -> None:
    damping = LogRateLimit(Clock())
    assert sum(damping.filter(record("a")) for _ in range(100)) == MAX_LINES
    assert damping.filter(record("b"))
    assert damping.filter(record("a", error=OSError()))
    assert damping.filter(record("a", level=logging.WARNING))


def test_info_records_are_never_suppressed() -> None:
    damping = LogRateLimit(Clock())
    assert all(damping.filter(record("request", level=logging.INFO)) for _ in range(1000))


def test_the_number_of_tracked_kinds_is_limited() -> None:
    damping = LogRateLimit(Clock())
    assert all(damping.filter(record(f"kind {number}")) for number in range(3 * MAX_KINDS))
