"""Objects of a failed request are freed without the garbage collector."""

import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator

import anyio
import anyio.lowlevel
import pytest

from pensieve.server.deadline_threads import DeadlineThreads
from pensieve.server.worker_thread import run_in_thread

pytestmark = pytest.mark.anyio


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
