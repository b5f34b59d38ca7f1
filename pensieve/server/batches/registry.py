"""All message batches: their records in memory, everything else on disk.

The one owner of both, used on the event loop by the endpoint and the worker; disk I/O runs in a
worker thread, one operation at a time. It answers no requests: the worker takes unfinished batches
from it and adds results.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio

from pensieve.api.base import new_id
from pensieve.api.batches import BatchEntry, BatchResultLine, Canceled, Expired
from pensieve.errors import (
    InvalidRequestError,
    NotFoundError,
    StorageQuotaExceededError,
)
from pensieve.server.batches.store import Batch, BatchStore, PendingRequest
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
        self._batches: dict[str, Batch] | None = None
        self._canceled: dict[str, anyio.Event] = {}
        self._queue: deque[Batch] = deque()
        self._arrival = anyio.Event()
        self._loading = anyio.Lock()
        self._disk = anyio.Lock()

    async def list_batches(self) -> Sequence[Batch]:
        return [*(await self._load()).values()][::-1]

    async def get(self, batch_id: str) -> Batch:
        """Raises `NotFoundError`."""
        batch = (await self._load()).get(batch_id)
        if batch is None:
            raise NotFoundError(f"Message batch {batch_id} not found")
        return batch

    @property
    def folder(self) -> Path:
        """May not exist yet."""
        return self._store.folder

    async def create(self, entries: Iterable[BatchEntry]) -> Batch:
        """Store a new batch and queue it.

        Entries are consumed one by one in a worker thread; other batches may use the disk
        meanwhile. Raises `StorageQuotaExceededError`, and what `entries` raise.
        """
        batches = await self._load()
        await self._delete_old()
        stored_bytes = sum(batch.stored_bytes for batch in batches.values())
        if stored_bytes >= self._limits.stored_bytes or len(batches) >= self._limits.batches:
            raise StorageQuotaExceededError(
                "This server has no space for more message batches; delete some that have ended"
            )
        now = self.clock()
        blank = Batch(new_id("msgbatch"), now, now + LIFETIME_S, requests=0, stored_bytes=0)
        batch = await run_disk_io(partial(self._store.create, blank, entries))
        batches[batch.id] = batch
        self._enqueue(batch)
        return batch

    async def cancel(self, batch_id: str) -> Batch:
        """Cancel a batch. One that has ended is unchanged. Raises `NotFoundError`."""
        batch = await self._change(batch_id, self._canceling)
        if batch.ended_at is None:
            self._canceled[batch_id].set()
        return batch

    async def end(self, batch_id: str) -> Batch:
        """End a batch: requests without a result become canceled or expired."""
        batch = await self._change(batch_id, self._ended)
        del self._canceled[batch_id]
        return batch

    async def delete(self, batch_id: str) -> None:
        """Delete a batch that has ended. Raises `NotFoundError`, `InvalidRequestError`."""
        async with self._disk:
            batch = await self.get(batch_id)
            if batch.ended_at is None:
                raise InvalidRequestError(
                    f"Message batch {batch_id} is still being processed;"
                    " cancel it before deleting it"
                )
            await run_disk_io(partial(self._store.delete, batch))
            del (await self._load())[batch_id]

    async def results(self, batch_id: str) -> Path:
        """Return the file of an ended batch's results. Raises `NotFoundError`."""
        batch = await self.get(batch_id)
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
        return await self._run_exclusively(partial(self._store.pending, batch))

    async def params(self, batch: Batch, request: PendingRequest) -> bytes:
        """Return the JSON params of a request."""
        return await self._run_exclusively(partial(self._store.params, batch, request))

    async def add_result(self, batch: Batch, line: BatchResultLine) -> None:
        """Add a result; it is on disk when this returns."""
        await self._run_exclusively(partial(self._store.append, batch, line))

    async def _load(self) -> dict[str, Batch]:
        """Return the batches by id; the first call reads them from disk."""
        async with self._loading:
            if self._batches is None:
                batches = await run_disk_io(self._store.load_all)
                self._batches = {batch.id: batch for batch in batches}
                for batch in batches:
                    if batch.ended_at is None:
                        self._enqueue(batch)
        return self._batches

    def _enqueue(self, batch: Batch) -> None:
        canceled = self._canceled[batch.id] = anyio.Event()
        if batch.cancel_initiated_at is not None:
            canceled.set()
        self._queue.append(batch)
        self._arrival.set()

    async def _delete_old(self) -> None:
        cutoff = self.clock() - RETENTION_S
        for batch in await self.list_batches():
            if batch.ended_at is not None and batch.created_at < cutoff:
                await self.delete(batch.id)

    async def _change(self, batch_id: str, change: Callable[[Batch], Batch]) -> Batch:
        async with self._disk:
            changed = await run_disk_io(partial(change, await self.get(batch_id)))
            (await self._load())[batch_id] = changed
        return changed

    def _canceling(self, batch: Batch) -> Batch:
        if batch.ended_at is not None or batch.cancel_initiated_at is not None:
            return batch
        batch = replace(batch, cancel_initiated_at=self.clock())
        self._store.save(batch)
        return batch

    def _ended(self, batch: Batch) -> Batch:
        rest = Expired() if batch.cancel_initiated_at is None else Canceled()
        return self._store.end(batch, rest, self.clock())

    async def _run_exclusively(self, work: Callable[[], T]) -> T:
        async with self._disk:
            return await run_disk_io(work)
