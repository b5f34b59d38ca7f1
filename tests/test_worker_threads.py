"""Work in threads: values, errors, deadlines, slots; a failed request keeps no objects alive."""

import contextvars
import errno
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator

import anyio
import anyio.lowlevel
import pytest

from pensieve.errors import DiskFullError, EngineBusyError, PensieveError, StorageError
from pensieve.worker_threads import DeadlineThreads, run_disk_io, run_in_thread, within

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


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EIO, StorageError)]
)
async def test_disk_errors_are_explained(number: int, kind: type[PensieveError]) -> None:
    def fail() -> None:
        raise OSError(number, "refused by the drive")

    with pytest.raises(kind, match=r"The disk is full|pensieve restart"):
        await run_disk_io(fail)


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


class Large:
    """A body of megabytes."""


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def fail(references: list[weakref.ref[Large]]) -> None:
    body = Large()
    references.append(weakref.ref(body))
    raise ValueError("too long")


def fail_after_another(references: list[weakref.ref[Large]]) -> None:
    body = Large()
    references.append(weakref.ref(body))
    try:
        fail(references)
    except ValueError:
        raise LookupError("in other words") from None


async def in_a_deadline_thread(work: Callable[[], None]) -> None:
    await DeadlineThreads(count=1, limit_s=5).run(work)


async def refused(
    run: Callable[[Callable[[], None]], Awaitable[None]],
    work: Callable[[list[weakref.ref[Large]]], None],
    references: list[weakref.ref[Large]],
) -> str:
    """An endpoint that holds a body and answers an error of its thread."""
    body = Large()
    references.append(weakref.ref(body))
    try:
        await run(lambda: work(references))
    except (ValueError, LookupError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("run", [run_in_thread, in_a_deadline_thread])
@pytest.mark.parametrize("work", [fail, fail_after_another])
@pytest.mark.usefixtures("without_collector")
async def test_error_from_a_thread_keeps_no_objects_alive(run, work) -> None:
    references: list[weakref.ref[Large]] = []
    assert await refused(run, work, references) in {"too long", "in other words"}
    assert len(references) >= 2
    with anyio.fail_after(5):
        # The thread drops its own reference a moment after it has answered.
        while any(reference() for reference in references):
            await anyio.lowlevel.checkpoint()


async def test_value_of_a_thread_is_returned() -> None:
    assert await run_in_thread(lambda: 7) == 7


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
