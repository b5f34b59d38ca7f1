"""Work with a deadline: its value, its error, its end after the deadline."""

import threading

import pytest

from pensieve.daemon_threads import within

LONG_S = 30.0


def test_work_within_the_deadline_returns_its_value() -> None:
    assert within(LONG_S, lambda: 5) == 5


def test_error_of_the_work_is_raised_in_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        within(LONG_S, lambda: 1 // 0)


def test_work_over_the_deadline_raises_and_continues() -> None:
    is_released, has_ended = threading.Event(), threading.Event()

    def work() -> None:
        is_released.wait()
        has_ended.set()

    with pytest.raises(TimeoutError):
        within(0.01, work)
    is_released.set()
    assert has_ended.wait(LONG_S)
