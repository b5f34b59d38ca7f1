"""The book of all message batches: their records in memory, everything else on disk behind them.

The one owner of both. Used on the event loop; what touches the disk runs in a worker thread, one at a time. It answers
no request: the queue takes unfinished batches from it and writes results to it.
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
from pensieve.server.batches.store import Batch, BatchStore, WaitingRequest
from pensieve.server.disk_io import run_disk_io

T = TypeVar("T")

LIFE_S = 24 * 3600.0
KEPT_S = 29 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much is kept for clients; a batch more is taken as long as it is less."""

    stored_bytes: int = 4 * 1024**3
    batches: int = 10_000


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """An unfinished batch on its way to the queue. canceled: set once its client wants no more of it."""

    batch: Batch
    canceled: anyio.Event


class BatchRegistry:
    """Owns every batch. What it reads or writes raises OSError, or `DiskFullError` where that is why."""

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
        self._arrived: deque[Batch] = deque()
        self._arrival = anyio.Event()
        self._loading = anyio.Lock()
        self._disk = anyio.Lock()

    async def all(self) -> Sequence[Batch]:
        """Every batch, the newest first."""
        return [*(await self._known()).values()][::-1]

    async def get(self, batch_id: str) -> Batch:
        """One batch. Raises `NotFoundError`."""
        batch = (await self._known()).get(batch_id)
        if batch is None:
            raise NotFoundError(f"Message batch {batch_id} not found")
        return batch

    @property
    def folder(self) -> Path:
        """Where batches lie; there may be none yet."""
        return self._store.folder

    async def create(self, entries: Iterable[BatchEntry]) -> Batch:
        """Keep a new batch; its turn comes. Raises `StorageQuotaExceededError`, and what `entries` raise.

        They are taken one by one, in a worker thread; other batches may use the disk meanwhile.
        """
        batches = await self._known()
        await self._forget_old()
        stored_bytes = sum(batch.stored_bytes for batch in batches.values())
        if stored_bytes >= self._limits.stored_bytes or len(batches) >= self._limits.batches:
            raise StorageQuotaExceededError(
                "This server keeps no more message batches; delete some that have ended"
            )
        now = self.clock()
        blank = Batch(new_id("msgbatch"), now, now + LIFE_S, requests=0, stored_bytes=0)
        batch = await run_disk_io(partial(self._store.create, blank, entries))
        batches[batch.id] = batch
        self._arrive(batch)
        return batch

    async def cancel(self, batch_id: str) -> Batch:
        """Answer no more of a batch. One that has ended stays as it is. Raises `NotFoundError`."""
        batch = await self._change(batch_id, self._canceling)
        if batch.ended_at is None:
            self._canceled[batch_id].set()
        return batch

    async def end(self, batch_id: str) -> Batch:
        """End a batch: what has no result yet was canceled or is expired."""
        batch = await self._change(batch_id, self._ended)
        del self._canceled[batch_id]
        return batch

    async def delete(self, batch_id: str) -> None:
        """Forget a batch that has ended. Raises `NotFoundError`, `InvalidRequestError`."""
        async with self._disk:
            batch = await self.get(batch_id)
            if batch.ended_at is None:
                raise InvalidRequestError(
                    f"Message batch {batch_id} is still being processed; cancel it before deleting it"
                )
            await run_disk_io(partial(self._store.delete, batch))
            del (await self._known())[batch_id]

    async def results(self, batch_id: str) -> Path:
        """The file of an ended batch's results. Raises `NotFoundError`."""
        batch = await self.get(batch_id)
        if batch.ended_at is None:
            raise NotFoundError(f"Message batch {batch_id} has no results yet: it has not ended")
        return self._store.results(batch)

    async def next_open(self) -> OpenBatch:
        """The next unfinished batch that nobody took yet; waits for one."""
        await self._known()
        while not self._arrived:
            self._arrival = anyio.Event()
            await self._arrival.wait()
        batch = self._arrived.popleft()
        return OpenBatch(batch, self._canceled[batch.id])

    async def waiting(self, batch: Batch) -> list[WaitingRequest]:
        """The requests of an unfinished batch that have no result, in their order."""
        return await self._alone(partial(self._store.waiting, batch))

    async def params(self, batch: Batch, request: WaitingRequest) -> bytes:
        """What one of them asks, as JSON."""
        return await self._alone(partial(self._store.params, batch, request))

    async def keep(self, batch: Batch, line: BatchResultLine) -> None:
        """Write down one result; it is on disk when this returns."""
        await self._alone(partial(self._store.append, batch, line))

    async def _known(self) -> dict[str, Batch]:
        """The batches by id, read from disk at the first time."""
        async with self._loading:
            if self._batches is None:
                found = await run_disk_io(self._store.all)
                self._batches = {batch.id: batch for batch in found}
                for batch in found:
                    if batch.ended_at is None:
                        self._arrive(batch)
        return self._batches

    def _arrive(self, batch: Batch) -> None:
        canceled = self._canceled[batch.id] = anyio.Event()
        if batch.cancel_initiated_at is not None:
            canceled.set()
        self._arrived.append(batch)
        self._arrival.set()

    async def _forget_old(self) -> None:
        long_ago = self.clock() - KEPT_S
        for batch in await self.all():
            if batch.ended_at is not None and batch.created_at < long_ago:
                await self.delete(batch.id)

    async def _change(self, batch_id: str, change: Callable[[Batch], Batch]) -> Batch:
        async with self._disk:
            changed = await run_disk_io(partial(change, await self.get(batch_id)))
            (await self._known())[batch_id] = changed
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

    async def _alone(self, work: Callable[[], T]) -> T:
        async with self._disk:
            return await run_disk_io(work)
