"""All message batches: the store on disk, and the queue of those that have not ended.

The one owner of both, used on the event loop by the endpoint and the worker; disk I/O runs in
worker threads, one write at a time. It answers no requests: the worker takes unfinished batches
from it and adds results.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio

from pensieve.api.batch_reading import LocatedEntry
from pensieve.api.batches import BatchResult, Canceled, Expired
from pensieve.errors import (
    InvalidRequestError,
    NotFoundError,
    StorageQuotaExceededError,
)
from pensieve.server.batches.store import Batch, BatchStore, PendingRequest
from pensieve.server.http.responses import Content
from pensieve.worker_threads import run_disk_io

T = TypeVar("T")

LIFETIME_S = 24 * 3600.0
RETENTION_S = 29 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """A new batch is accepted while less than this is stored."""

    stored_bytes: int = 4 * 1024**3
    batches: int = 10_000


@dataclass(frozen=True, slots=True)
class OpenBatch:
    batch: Batch
    canceled: anyio.Event  # set once its client cancels it


class BatchRegistry:
    """Owns every batch.

    Methods that use the disk raise OSError, or `DiskFullError` if it is full.
    """

    def __init__(
        self,
        store: BatchStore,
        *,
        limits: BatchLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._limits = limits or BatchLimits()
        self.clock = clock
        self._canceled: dict[str, anyio.Event] = {}  # of each batch that has not ended
        self._queue: deque[Batch] = deque()
        self._arrival = anyio.Event()
        self._is_loaded = False
        self._loading = anyio.Lock()
        self._writing = anyio.Lock()

    async def list_batches(self, owner: str = "") -> Sequence[Batch]:
        """Return the owner's batches, newest first."""
        return [each for each in await self._all() if each.owner == owner]

    async def get(self, batch_id: str, owner: str = "") -> Batch:
        """Raises `NotFoundError`, also for another owner's batch."""
        batch = await self._get(batch_id)
        if batch.owner != owner:
            raise NotFoundError(f"Message batch {batch_id} not found")
        return batch

    async def new_body(self) -> Path:
        """Return the path for the body of a new batch. Its folder may not exist yet."""
        await self._load()
        return self._store.new_body()

    async def create(self, body: Path, entries: Iterable[LocatedEntry], owner: str = "") -> Batch:
        """Store a new batch, whose body is at `new_body`, and queue it.

        Entries are consumed one by one in a worker thread. Raises `StorageQuotaExceededError`, and
        what `entries` raise.
        """
        await self._delete_old()
        batches = await self._all()
        stored_bytes = sum(batch.stored_bytes for batch in batches)
        if stored_bytes >= self._limits.stored_bytes or len(batches) >= self._limits.batches:
            raise StorageQuotaExceededError(
                "This server has no space for more message batches; delete some that have ended"
            )
        now = self.clock()
        create = partial(self._store.create, created_at=now, expires_at=now + LIFETIME_S)
        batch = await self._write(partial(create, body, entries, owner=owner))
        self._enqueue(batch)
        return batch

    async def cancel(self, batch_id: str, owner: str = "") -> Batch:
        """Cancel a batch. One that has ended is unchanged. Raises `NotFoundError`."""
        await self._load()
        await self.get(batch_id, owner)
        batch = await self._write(partial(self._store.cancel, batch_id, self.clock()))
        if batch_id in self._canceled:
            self._canceled[batch_id].set()
        return batch

    async def end(self, batch_id: str) -> Batch:
        """End a batch: requests without a result become canceled or expired."""
        batch = await self._get(batch_id)
        rest = Expired() if batch.cancel_initiated_at is None else Canceled()
        ended = await self._write(partial(self._store.end, batch, rest, self.clock()))
        del self._canceled[batch_id]
        return ended

    async def delete(self, batch_id: str, owner: str = "") -> None:
        """Delete a batch that has ended. Raises `NotFoundError`, `InvalidRequestError`."""
        batch = await self.get(batch_id, owner)
        if batch.ended_at is None:
            raise InvalidRequestError(
                f"Message batch {batch_id} is still being processed; cancel it before deleting it"
            )
        await self._write(partial(self._store.delete, batch))

    async def results(self, batch_id: str, owner: str = "") -> AbstractContextManager[Content]:
        """Return the results of an ended batch. Raises `NotFoundError`."""
        batch = await self.get(batch_id, owner)
        if batch.ended_at is None:
            raise NotFoundError(f"Message batch {batch_id} has no results yet: it has not ended")
        return self._store.results(batch)

    async def take_next(self) -> OpenBatch:
        """Wait for the next unfinished batch and remove it from the queue."""
        await self._load()
        while not self._queue:
            self._arrival = anyio.Event()
            await self._arrival.wait()
        batch = self._queue.popleft()
        return OpenBatch(batch, self._canceled[batch.id])

    async def pending(self, batch: Batch) -> list[PendingRequest]:
        """Return the requests of an unfinished batch that have no result, in order."""
        return await run_disk_io(partial(self._store.pending, batch))

    async def entry(self, batch: Batch, request: PendingRequest) -> bytes:
        """Return a request as it was sent."""
        return await run_disk_io(partial(self._store.entry, batch, request))

    async def add_result(self, batch: Batch, request: PendingRequest, result: BatchResult) -> None:
        """Add a result; it is on disk when this returns."""
        await self._write(partial(self._store.add_result, batch, request, result))

    async def _load(self) -> None:
        """Queue the batches that an earlier server left unfinished; done once."""
        async with self._loading:
            if not self._is_loaded:
                for batch in await run_disk_io(self._store.load_unfinished):
                    self._enqueue(batch)
                self._is_loaded = True

    def _enqueue(self, batch: Batch) -> None:
        canceled = self._canceled[batch.id] = anyio.Event()
        if batch.cancel_initiated_at is not None:
            canceled.set()
        self._queue.append(batch)
        self._arrival.set()

    async def _delete_old(self) -> None:
        cutoff = self.clock() - RETENTION_S
        for batch in await self._all():
            if batch.ended_at is not None and batch.created_at < cutoff:
                await self._write(partial(self._store.delete, batch))

    async def _all(self) -> Sequence[Batch]:
        return await run_disk_io(self._store.list_batches)

    async def _get(self, batch_id: str) -> Batch:
        return await run_disk_io(partial(self._store.get, batch_id))

    async def _write(self, work: Callable[[], T]) -> T:
        # The database would wait as well, but in one of the few worker threads.
        async with self._writing:
            return await run_disk_io(work)
