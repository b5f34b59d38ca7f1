"""The queue behind message batches, with a clock and an engine of its own: order, cancelling, expiry, restarts."""

import errno
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from pensieve.api.batches import BatchResultLine
from pensieve.errors import (
    DiskFullError,
    EngineBusyError,
    EngineFailedError,
    InvalidRequestError,
    NotFoundError,
    StorageQuotaExceededError,
    WorkerDiedError,
)
from pensieve.server.batches.registry import KEPT_S, LIFE_S, BatchLimits, BatchRegistry
from pensieve.server.batches.retrying_completer import MAX_DEATHS
from pensieve.server.batches.store import Batch, BatchStore
from pensieve.server.batches.worker import SLOTS, BatchWorker
from tests.fakes import RustPanic
from tests.server.batch_cases import Answering, Clock, entries

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    return BatchStore(tmp_path / "batches")


@asynccontextmanager
async def working(book: BatchRegistry, answering: Answering) -> AsyncGenerator[None]:
    """The queue at work; leaving the block is the server's end."""
    with anyio.fail_after(10):
        async with BatchWorker(book, answering, retry_s=0).working():
            yield


async def ended(book: BatchRegistry, batch: Batch) -> Batch:
    while (current := await book.get(batch.id)).ended_at is None:
        await anyio.lowlevel.checkpoint()
    return current


async def results(book: BatchRegistry, batch: Batch) -> dict[str, dict[str, object]]:
    text = (await book.results(batch.id)).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len({line["custom_id"] for line in lines}) == len(lines)
    return {line["custom_id"]: line["result"] for line in lines}


async def until(condition) -> None:
    while not condition():
        await anyio.lowlevel.checkpoint()


async def test_every_request_is_answered_once(store: BatchStore) -> None:
    book, answering = BatchRegistry(store), Answering()
    async with working(book, answering):
        batch = await book.create(entries(map(str, range(20))))
        assert (await ended(book, batch)).outcomes == {"succeeded": 20}
    assert len(answering.asked) == len(set(answering.asked)) == 20
    answers = await results(book, batch)
    assert answers["7"]["message"]["usage"]["service_tier"] == "batch"


async def test_few_are_answered_at_once_and_batches_take_turns(store: BatchStore) -> None:
    gate = anyio.Event()
    book, answering = BatchRegistry(store), Answering([gate] * 9)
    first = await book.create(entries(f"a{n}" for n in range(30)))
    second = await book.create(entries(f"b{n}" for n in range(4)))
    async with working(book, answering):
        await until(lambda: answering.at_once == SLOTS)
        gate.set()
        await ended(book, second)
        assert (await book.get(first.id)).ended_at is None
        await ended(book, first)
    assert answering.most_at_once == SLOTS


async def test_the_newest_batch_is_listed_first(store: BatchStore) -> None:
    book = BatchRegistry(store)
    made = [await book.create(entries("a")) for _ in range(3)]
    assert await book.all() == made[::-1]


async def test_a_bad_request_is_a_result_like_any_other(store: BatchStore) -> None:
    book = BatchRegistry(store)
    answering = Answering([InvalidRequestError("max_tokens: Field required"), ValueError("a bug")])
    async with working(book, answering):
        batch = await book.create(entries("abc"))
        assert (await ended(book, batch)).outcomes == {"errored": 2, "succeeded": 1}
    errors = [one["error"] for one in (await results(book, batch)).values() if "error" in one]
    assert [one["error"] for one in errors] == [
        {"type": "invalid_request_error", "message": "max_tokens: Field required"},
        {"type": "api_error", "message": "Internal server error"},
    ]
    assert all(one["request_id"].startswith("req_") for one in errors)


@pytest.mark.parametrize(
    "trouble",
    [EngineBusyError("loading"), EngineFailedError("broken"), WorkerDiedError("gone")],
)
async def test_an_engine_that_is_not_there_is_waited_for(
    store: BatchStore, trouble: Exception
) -> None:
    book, answering = BatchRegistry(store), Answering([trouble] * (MAX_DEATHS - 1))
    async with working(book, answering):
        batch = await book.create(entries("a"))
        assert (await ended(book, batch)).outcomes == {"succeeded": 1}
    assert len(answering.asked) == MAX_DEATHS


async def test_a_request_that_the_engine_dies_of_is_given_up(store: BatchStore) -> None:
    book, answering = BatchRegistry(store), Answering([WorkerDiedError("gone")] * MAX_DEATHS)
    async with working(book, answering):
        batch = await book.create(entries("a"))
        assert (await ended(book, batch)).outcomes == {"errored": 1}
    (result,) = (await results(book, batch)).values()
    assert result["error"]["error"]["type"] == "api_error"


async def test_a_panic_is_one_requests_result_and_the_others_go_on(store: BatchStore) -> None:
    book, answering = BatchRegistry(store), Answering([RustPanic("index out of bounds")])
    async with working(book, answering):
        batch = await book.create(entries("abc"))
        assert (await ended(book, batch)).outcomes == {"errored": 1, "succeeded": 2}


async def test_a_canceled_batch_leaves_its_answers_in_the_middle(store: BatchStore) -> None:
    book = BatchRegistry(store)
    answering = Answering([anyio.Event(), ValueError("done"), anyio.Event()])
    async with working(book, answering):
        batch = await book.create(entries("abcdef"))
        await until(lambda: len(answering.asked) == 3)
        canceling = await book.cancel(batch.id)
        assert canceling.cancel_initiated_at is not None
        assert (await ended(book, batch)).outcomes == {"errored": 1, "canceled": 5}
    assert answering.at_once == 0


async def test_a_batch_canceled_before_its_turn_is_never_begun(store: BatchStore) -> None:
    book, answering = BatchRegistry(store), Answering()
    batch = await book.create(entries("ab"))
    await book.cancel(batch.id)
    again = BatchRegistry(store)
    async with working(again, answering):
        assert (await ended(again, batch)).outcomes == {"canceled": 2}
    assert answering.asked == []


async def test_cancelling_twice_or_after_the_end_changes_nothing(store: BatchStore) -> None:
    book, clock = BatchRegistry(store), Clock()
    batch = await book.create(entries("ab"))
    first = await book.cancel(batch.id)
    clock.now += 5
    assert await book.cancel(batch.id) == first
    async with working(book, Answering()):
        last = await ended(book, batch)
    assert await book.cancel(batch.id) == last


async def test_what_has_no_answer_after_a_day_expires(store: BatchStore) -> None:
    clock, answering = Clock(), Answering()
    batch = await BatchRegistry(store, clock=clock).create(entries("ab"))
    clock.now += LIFE_S
    book = BatchRegistry(store, clock=clock)
    async with working(book, answering):
        assert (await ended(book, batch)).outcomes == {"expired": 2}
    assert answering.asked == []


async def test_time_is_looked_at_before_each_request(store: BatchStore) -> None:
    clock, gate = Clock(), anyio.Event()
    book, answering = BatchRegistry(store, clock=clock), Answering([gate])
    async with working(book, answering):
        batch = await book.create(entries("abcdefgh"))
        await until(lambda: len(answering.asked) == 2)
        clock.now += LIFE_S
        gate.set()
        outcomes = (await ended(book, batch)).outcomes
    assert outcomes["expired"] == 8 - len(answering.asked)


async def test_a_server_that_starts_again_goes_on_where_it_was(store: BatchStore) -> None:
    book = BatchRegistry(store)
    first = Answering([ValueError("1"), ValueError("2"), ValueError("3"), *[anyio.Event()] * 2])
    async with working(book, first):
        batch = await book.create(entries("abcdef"))
        await until(lambda: len(first.asked) == 5)
    again, second = BatchRegistry(store), Answering()
    async with working(again, second):
        assert (await ended(again, batch)).outcomes == {"errored": 3, "succeeded": 3}
    assert set(first.asked[:3]) & set(second.asked) == set()
    assert len(await results(again, batch)) == 6


class FullStore(BatchStore):
    """A disk that is full for a while."""

    full_times = 0

    def _say(self) -> None:
        if self.full_times:
            self.full_times -= 1
            raise OSError(errno.ENOSPC, "No space left on device")

    def create(self, batch: Batch, entries) -> Batch:
        self._say()
        return super().create(batch, entries)

    def append(self, batch: Batch, line: BatchResultLine) -> None:
        self._say()
        super().append(batch, line)


async def test_a_full_disk_costs_no_answer(tmp_path: Path) -> None:
    store = FullStore(tmp_path / "batches")
    book, answering = BatchRegistry(store), Answering()
    async with working(book, answering):
        batch = await book.create(entries("abc"))
        store.full_times = 5
        assert (await ended(book, batch)).outcomes == {"succeeded": 3}
        store.full_times = 1
        with pytest.raises(DiskFullError):
            await book.create(entries("d"))
    assert len(answering.asked) == 3
    assert await book.all() == [await book.get(batch.id)]


@pytest.mark.parametrize("limits", [BatchLimits(batches=2), BatchLimits(stored_bytes=30)])
async def test_no_more_is_kept_than_the_limits_allow(
    store: BatchStore, limits: BatchLimits
) -> None:
    book = BatchRegistry(store, limits=limits)
    async with working(book, Answering()):
        kept = [await book.create(entries("a")) for _ in range(2)]
        with pytest.raises(StorageQuotaExceededError):
            await book.create(entries("a"))
        for batch in kept:
            await ended(book, batch)
            await book.delete(batch.id)
        await book.create(entries("a"))


async def test_old_batches_are_forgotten(store: BatchStore) -> None:
    clock = Clock()
    book = BatchRegistry(store, clock=clock)
    async with working(book, Answering()):
        old = await book.create(entries("a"))
        await ended(book, old)
        clock.now += KEPT_S + 1
        new = await book.create(entries("a"))
        assert await book.all() == [new]
    assert [batch.id for batch in store.all()] == [new.id]


async def test_only_an_ended_batch_is_deleted_and_has_results(store: BatchStore) -> None:
    book = BatchRegistry(store)
    batch = await book.create(entries("a"))
    with pytest.raises(InvalidRequestError, match="still being processed"):
        await book.delete(batch.id)
    with pytest.raises(NotFoundError):
        await book.results(batch.id)
    async with working(book, Answering()):
        await ended(book, batch)
    await book.delete(batch.id)
    for ask in (book.get, book.delete, book.cancel, book.results):
        with pytest.raises(NotFoundError):
            await ask(batch.id)
