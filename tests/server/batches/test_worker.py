"""The batch worker with a fake clock and engine: order, cancellation, expiry, restarts."""

import errno
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from pensieve.api.batch_reading import LocatedEntry
from pensieve.api.batches import BatchResult
from pensieve.errors import (
    DiskFullError,
    EngineBusyError,
    EngineFailedError,
    InvalidRequestError,
    NotFoundError,
    StorageQuotaExceededError,
    WorkerDiedError,
)
from pensieve.server.activity.registry import Activity
from pensieve.server.batches.registry import LIFETIME_S, RETENTION_S, BatchLimits, BatchRegistry
from pensieve.server.batches.retrying_completer import MAX_DEATHS
from pensieve.server.batches.store import Batch, BatchStore, PendingRequest
from pensieve.server.batches.worker import SLOTS, BatchWorker
from pensieve.server.keys.limits import KeyLimiter
from tests.server.batch_cases import Answering, Clock, create
from tests.support.fakes import RustPanic

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    return BatchStore(tmp_path / "batches")


@asynccontextmanager
async def working(registry: BatchRegistry, answering: Answering) -> AsyncGenerator[None]:
    """Run the worker; leaving the block is the end of the server."""
    with anyio.fail_after(10):
        limiter = KeyLimiter(Path("/nowhere/usage"))
        async with BatchWorker(registry, answering, Activity(), limiter, retry_s=0).working():
            yield


async def ended(registry: BatchRegistry, batch: Batch) -> Batch:
    while (current := await registry.get(batch.id)).ended_at is None:
        await anyio.lowlevel.checkpoint()
    return current


async def results(registry: BatchRegistry, batch: Batch) -> dict[str, dict[str, object]]:
    with await registry.results(batch.id) as content:
        lines = [json.loads(line) for line in b"".join(content.chunks).splitlines()]
    assert len({line["custom_id"] for line in lines}) == len(lines)
    return {line["custom_id"]: line["result"] for line in lines}


async def until(condition) -> None:
    while not condition():
        await anyio.lowlevel.checkpoint()


async def test_every_request_is_answered_once(store: BatchStore) -> None:
    registry, answering = BatchRegistry(store), Answering()
    async with working(registry, answering):
        batch = await create(registry, map(str, range(20)))
        assert (await ended(registry, batch)).outcomes == {"succeeded": 20}
    assert len(answering.received) == len(set(answering.received)) == 20
    answers = await results(registry, batch)
    assert answers["7"]["message"]["usage"]["service_tier"] == "batch"


async def test_concurrency_is_limited_and_batches_take_turns(store: BatchStore) -> None:
    gate = anyio.Event()
    registry, answering = BatchRegistry(store), Answering([gate] * 9)
    first = await create(registry, (f"a{n}" for n in range(30)))
    second = await create(registry, (f"b{n}" for n in range(4)))
    async with working(registry, answering):
        await until(lambda: answering.running == SLOTS)
        gate.set()
        await ended(registry, second)
        assert (await registry.get(first.id)).ended_at is None
        await ended(registry, first)
    assert answering.max_running == SLOTS


async def test_newest_batch_is_listed_first(store: BatchStore) -> None:
    registry = BatchRegistry(store)
    batches = [await create(registry, "a") for _ in range(3)]
    assert await registry.list_batches() == batches[::-1]


async def test_invalid_request_becomes_an_errored_result(store: BatchStore) -> None:
    registry = BatchRegistry(store)
    answering = Answering([InvalidRequestError("max_tokens: Field required"), ValueError("a bug")])
    async with working(registry, answering):
        batch = await create(registry, "abc")
        assert (await ended(registry, batch)).outcomes == {"errored": 2, "succeeded": 1}
    errors = [one["error"] for one in (await results(registry, batch)).values() if "error" in one]
    assert [one["error"] for one in errors] == [
        {"type": "invalid_request_error", "message": "max_tokens: Field required"},
        {"type": "api_error", "message": "Internal server error"},
    ]
    assert all(one["request_id"].startswith("req_") for one in errors)


@pytest.mark.parametrize(
    "trouble",
    [EngineBusyError("loading"), EngineFailedError("broken"), WorkerDiedError("gone")],
)
async def test_unavailable_engine_is_retried(store: BatchStore, trouble: Exception) -> None:
    registry, answering = BatchRegistry(store), Answering([trouble] * (MAX_DEATHS - 1))
    async with working(registry, answering):
        batch = await create(registry, "a")
        assert (await ended(registry, batch)).outcomes == {"succeeded": 1}
    assert len(answering.received) == MAX_DEATHS


async def test_request_that_crashes_the_engine_repeatedly_is_errored(store: BatchStore) -> None:
    registry, answering = BatchRegistry(store), Answering([WorkerDiedError("gone")] * MAX_DEATHS)
    async with working(registry, answering):
        batch = await create(registry, "a")
        assert (await ended(registry, batch)).outcomes == {"errored": 1}
    (result,) = (await results(registry, batch)).values()
    assert result["error"]["error"]["type"] == "api_error"


async def test_panic_errors_one_request_and_others_continue(store: BatchStore) -> None:
    registry, answering = BatchRegistry(store), Answering([RustPanic("index out of bounds")])
    async with working(registry, answering):
        batch = await create(registry, "abc")
        assert (await ended(registry, batch)).outcomes == {"errored": 1, "succeeded": 2}


async def test_requests_whose_body_was_removed_are_errored(tmp_path: Path) -> None:
    registry, answering = BatchRegistry(BatchStore(tmp_path / "batches")), Answering()
    batch = await create(registry, "ab")
    (tmp_path / "batches" / batch.id).unlink()
    async with working(registry, answering):
        assert (await ended(registry, batch)).outcomes == {"errored": 2}
    assert answering.received == []


async def test_cancel_stops_running_answers(store: BatchStore) -> None:
    registry = BatchRegistry(store)
    answering = Answering([anyio.Event(), ValueError("done"), anyio.Event()])
    async with working(registry, answering):
        batch = await create(registry, "abcdef")
        await until(lambda: len(answering.received) == 3)
        canceling = await registry.cancel(batch.id)
        assert canceling.cancel_initiated_at is not None
        assert (await ended(registry, batch)).outcomes == {"errored": 1, "canceled": 5}
    assert answering.running == 0


async def test_batch_canceled_while_queued_is_never_started(store: BatchStore) -> None:
    registry, answering = BatchRegistry(store), Answering()
    batch = await create(registry, "ab")
    await registry.cancel(batch.id)
    again = BatchRegistry(store)
    async with working(again, answering):
        assert (await ended(again, batch)).outcomes == {"canceled": 2}
    assert answering.received == []


async def test_cancel_is_idempotent_and_ignored_after_end(store: BatchStore) -> None:
    registry, clock = BatchRegistry(store), Clock()
    batch = await create(registry, "ab")
    first = await registry.cancel(batch.id)
    clock.now += 5
    assert await registry.cancel(batch.id) == first
    async with working(registry, Answering()):
        last = await ended(registry, batch)
    assert await registry.cancel(batch.id) == last


async def test_unanswered_requests_expire_after_a_day(store: BatchStore) -> None:
    clock, answering = Clock(), Answering()
    batch = await create(BatchRegistry(store, clock=clock), "ab")
    clock.now += LIFETIME_S
    registry = BatchRegistry(store, clock=clock)
    async with working(registry, answering):
        assert (await ended(registry, batch)).outcomes == {"expired": 2}
    assert answering.received == []


async def test_expiry_is_checked_before_each_request(store: BatchStore) -> None:
    clock, gate = Clock(), anyio.Event()
    registry, answering = BatchRegistry(store, clock=clock), Answering([gate])
    async with working(registry, answering):
        batch = await create(registry, "abcdefgh")
        await until(lambda: len(answering.received) == 2)
        clock.now += LIFETIME_S
        gate.set()
        outcomes = (await ended(registry, batch)).outcomes
    assert outcomes["expired"] == 8 - len(answering.received)


async def test_restarted_server_continues_unfinished_batches(store: BatchStore) -> None:
    registry = BatchRegistry(store)
    first = Answering([ValueError("1"), ValueError("2"), ValueError("3"), *[anyio.Event()] * 2])
    async with working(registry, first):
        batch = await create(registry, "abcdef")
        await until(lambda: len(first.received) == 5)
    again, second = BatchRegistry(store), Answering()
    async with working(again, second):
        assert (await ended(again, batch)).outcomes == {"errored": 3, "succeeded": 3}
    assert set(first.received[:3]) & set(second.received) == set()
    assert len(await results(again, batch)) == 6


class FullStore(BatchStore):
    """A store whose disk is full for a while."""

    full_times = 0

    def _raise_if_full(self) -> None:
        if self.full_times:
            self.full_times -= 1
            raise OSError(errno.ENOSPC, "No space left on device")

    def create(self, body: Path, entries: Iterable[LocatedEntry], **times: float) -> Batch:
        self._raise_if_full()
        return super().create(body, entries, **times)

    def add_result(self, batch: Batch, request: PendingRequest, result: BatchResult) -> None:
        self._raise_if_full()
        super().add_result(batch, request, result)


async def test_full_disk_loses_no_result(tmp_path: Path) -> None:
    store = FullStore(tmp_path / "batches")
    registry, answering = BatchRegistry(store), Answering()
    async with working(registry, answering):
        batch = await create(registry, "abc")
        store.full_times = 5
        assert (await ended(registry, batch)).outcomes == {"succeeded": 3}
        store.full_times = 1
        with pytest.raises(DiskFullError):
            await create(registry, "d")
    assert len(answering.received) == 3
    assert await registry.list_batches() == [await registry.get(batch.id)]


@pytest.mark.parametrize("limits", [BatchLimits(batches=2), BatchLimits(stored_bytes=100)])
async def test_storage_limits_are_enforced(store: BatchStore, limits: BatchLimits) -> None:
    registry = BatchRegistry(store, limits=limits)
    async with working(registry, Answering()):
        stored = [await create(registry, "a") for _ in range(2)]
        with pytest.raises(StorageQuotaExceededError):
            await create(registry, "a")
        for batch in stored:
            await ended(registry, batch)
            await registry.delete(batch.id)
        await create(registry, "a")


async def test_old_batches_are_deleted(store: BatchStore) -> None:
    clock = Clock()
    registry = BatchRegistry(store, clock=clock)
    async with working(registry, Answering()):
        old = await create(registry, "a")
        await ended(registry, old)
        clock.now += RETENTION_S + 1
        new = await create(registry, "a")
        assert await registry.list_batches() == [new]
    assert store.list_batches() == [new]


async def test_only_an_ended_batch_has_results_and_can_be_deleted(store: BatchStore) -> None:
    registry = BatchRegistry(store)
    batch = await create(registry, "a")
    with pytest.raises(InvalidRequestError, match="still being processed"):
        await registry.delete(batch.id)
    with pytest.raises(NotFoundError):
        await registry.results(batch.id)
    async with working(registry, Answering()):
        await ended(registry, batch)
    await registry.delete(batch.id)
    for ask in (registry.get, registry.delete, registry.cancel, registry.results):
        with pytest.raises(NotFoundError):
            await ask(batch.id)
