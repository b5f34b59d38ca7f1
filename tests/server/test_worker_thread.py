"""What a failed request worked on goes with it, without the garbage collector."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from pensieve.server.worker_thread import run_in_thread

pytestmark = pytest.mark.anyio


class Large:
    """Stands for a body of megabytes."""


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def fail(kept: list[weakref.ref[Large]]) -> None:
    body = Large()
    kept.append(weakref.ref(body))
    raise ValueError("too long")


def fail_after_another(kept: list[weakref.ref[Large]]) -> None:
    body = Large()
    kept.append(weakref.ref(body))
    try:
        fail(kept)
    except ValueError:
        raise LookupError("in other words") from None


@pytest.mark.parametrize("work", [fail, fail_after_another])
@pytest.mark.usefixtures("without_collector")
async def test_an_error_from_a_thread_keeps_nothing_that_its_function_held(work) -> None:
    kept: list[weakref.ref[Large]] = []

    async def failed() -> str:
        try:
            await run_in_thread(lambda: work(kept))
        except (ValueError, LookupError) as error:
            return str(error)
        return ""

    assert await failed() in {"too long", "in other words"}
    assert kept
    assert [reference() for reference in kept] == [None] * len(kept)


async def test_what_a_thread_returns_comes_back() -> None:
    assert await run_in_thread(lambda: 7) == 7
