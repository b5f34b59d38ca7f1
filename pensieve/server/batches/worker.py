"""Answers message batches in the background, with lower priority than clients that wait.

A few requests run at a time; those of several batches take turns. A result is on disk before the
next request starts, so a server that ends in any way continues where it stopped. The caller passes
in how a request is answered.
"""

import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import anyio

from pensieve.errors import StorageError
from pensieve.server.activity.registry import Activity
from pensieve.server.batches.registry import BatchRegistry, OpenBatch
from pensieve.server.batches.retrying_completer import AnswerCall, RetryingCompleter
from pensieve.server.batches.store import Batch, PendingRequest
from pensieve.server.errors import PASS_THROUGH
from pensieve.server.keys.limits import KeyLimiter

_log = logging.getLogger("pensieve.server")

T = TypeVar("T")

SLOTS = 2
RETRY_S = 5.0


class BatchWorker:
    """Owns the background tasks. `retry_s` is the delay after an engine or disk failure."""

    def __init__(
        self,
        registry: BatchRegistry,
        answer: AnswerCall,
        activity: Activity,
        limiter: KeyLimiter,
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        self._registry = registry
        self._completer = RetryingCompleter(answer, activity, limiter, retry_s=retry_s)
        self._retry_s = retry_s
        self._slots = anyio.Semaphore(SLOTS)

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """Answer batches while the block lasts. Unfinished ones continue at the next start."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._work)
                yield
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The work raises nothing, so this is an error of the block; its caller expects it, not
            # a group of one.
            raise group.exceptions[0] from None

    async def _work(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                open_batch = await self._retry_disk(self._registry.take_next)
                tasks.start_soon(self._process, open_batch)

    async def _process(self, open_batch: OpenBatch) -> None:
        """Run one batch to its end. After an internal error it waits for the next start."""
        try:
            await self._answer_until_end(open_batch)
            ended = await self._retry_disk(partial(self._registry.end, open_batch.batch.id))
            _log.info("%s ended: %s", ended.id, ended.outcomes)
        except PASS_THROUGH:
            raise
        except BaseException:  # noqa: BLE001 -- other batches and the server continue
            _log.exception("%s failed, it continues at the next start", open_batch.batch.id)

    async def _answer_until_end(self, open_batch: OpenBatch) -> None:
        """Return when all requests have results, or when the batch is canceled or expired."""
        remaining_s = open_batch.batch.expires_at - self._registry.clock()
        with anyio.move_on_after(max(0.0, remaining_s)):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_when, open_batch.canceled, tasks.cancel_scope)
                pending = deque(
                    await self._retry_disk(partial(self._registry.pending, open_batch.batch))
                )
                async with anyio.create_task_group() as answering:
                    for _ in range(SLOTS):
                        answering.start_soon(self._answer_each, open_batch.batch, pending)
                tasks.cancel_scope.cancel()

    async def _answer_each(self, batch: Batch, pending: deque[PendingRequest]) -> None:
        # The clock is checked before each one: timers do not count the time that a machine slept.
        while pending and self._registry.clock() < batch.expires_at:
            async with self._slots:
                if pending:
                    await self._answer(batch, pending.popleft())

    async def _answer(self, batch: Batch, request: PendingRequest) -> None:
        entry = await self._retry_disk(partial(self._registry.entry, batch, request))
        result = await self._completer.result(entry, batch.owner)
        await self._retry_disk(partial(self._registry.add_result, batch, request, result))

    async def _retry_disk(self, work: Callable[[], Awaitable[T]]) -> T:
        """Retry `work` until the disk allows it."""
        while True:
            try:
                return await work()
            except (OSError, StorageError) as error:
                _log.warning("batches paused, disk I/O failed: %s", error)
            await anyio.sleep(self._retry_s)


async def _cancel_when(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
