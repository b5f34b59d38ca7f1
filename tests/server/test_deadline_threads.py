"""Work in deadline threads: values, errors, deadlines, slots."""

import contextvars
import threading
from collections.abc import Callable

import anyio
import pytest

from pensieve.errors import EngineBusyError
from pensieve.server.deadline_threads import DeadlineThreads

LONG_S = 30.0


@pytest.fixture
def stuck() -> Callable[[], object]:
    """Work that does not end before the test does."""
    end = threading.Event()
    yield end.wait
    end.set()


async def test_run_returns_value() -> None:
    assert await DeadlineThreads(1, LONG_S).run(lambda: 5) == 5


async def test_failed_work_raises_and_frees_its_slot() -> None:
    threads = DeadlineThreads(1, LONG_S)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
    assert await threads.run(lambda: 5) == 5


async def test_work_sees_context_variables_of_caller() -> None:
    name = contextvars.ContextVar("name", default="")
    name.set("caller")
    assert await DeadlineThreads(1, LONG_S).run(name.get) == "caller"


async def test_work_over_deadline_raises_and_occupies_its_slot(
    stuck: Callable[[], object],
) -> None:
    threads = DeadlineThreads(2, 0.02)
    with pytest.raises(TimeoutError):
        await threads.run(stuck)
    assert await threads.run(lambda: 5) == 5
    with pytest.raises(TimeoutError):
        await threads.run(stuck)
    with pytest.raises(EngineBusyError):
        await threads.run(lambda: 5)


async def test_slot_is_freed_when_abandoned_work_ends() -> None:
    end = threading.Event()
    threads = DeadlineThreads(1, 0.02)
    with pytest.raises(TimeoutError):
        await threads.run(end.wait)
    end.set()
    while True:
        try:
            assert await threads.run(lambda: 5) == 5
        except EngineBusyError:
            continue
        return


async def test_cancelled_caller_does_not_stop_work(stuck: Callable[[], object]) -> None:
    threads = DeadlineThreads(1, LONG_S)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(threads.run, stuck)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    with anyio.move_on_after(0.02) as scope:
        await threads.run(lambda: 5)
    assert scope.cancelled_caught
