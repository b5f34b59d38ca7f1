"""A fault that comes thousands of times is a few lines of the log, and nothing else is lost."""

import logging

from pensieve.log_rate_limit import MAX_KINDS, MAX_LINES, PERIOD_S, LogRateLimit


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(
    message: str, *values: object, level: int = logging.ERROR, error: Exception | None = None
) -> logging.LogRecord:
    cause = (type(error), error, None) if error else None
    return logging.LogRecord("asyncio", level, "", 0, message, values, cause)


def test_a_flood_is_a_few_lines_and_its_number_comes_with_the_next_one() -> None:
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


def test_other_faults_are_told_in_the_middle_of_a_flood() -> None:
    damping = LogRateLimit(Clock())
    assert sum(damping.filter(record("a")) for _ in range(100)) == MAX_LINES
    assert damping.filter(record("b"))
    assert damping.filter(record("a", error=OSError()))
    assert damping.filter(record("a", level=logging.WARNING))


def test_what_is_no_fault_is_never_held_back() -> None:
    damping = LogRateLimit(Clock())
    assert all(damping.filter(record("request", level=logging.INFO)) for _ in range(1000))


def test_many_kinds_take_no_more_memory() -> None:
    damping = LogRateLimit(Clock())
    assert all(damping.filter(record(f"kind {number}")) for number in range(3 * MAX_KINDS))
