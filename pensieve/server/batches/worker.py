"""The queue that answers message batches: a few requests at a time, beside and behind those that somebody waits for.

Requests of several batches take turns. A result is in the book, on disk, before the next request is begun, so a server
that ends in any way goes on where it was. How a request is answered is handed in.
"""

import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import anyio

from pensieve.api.batches import BatchResultLine
from pensieve.errors import DiskFullError
from pensieve.server.batches.registry import BatchRegistry, OpenBatch
from pensieve.server.batches.retrying_completer import AnswerCall, RetryingCompleter
from pensieve.server.batches.store import Batch, WaitingRequest
from pensieve.server.errors import PASSING

_log = logging.getLogger("pensieve.server")

T = TypeVar("T")

SLOTS = 2
RETRY_S = 5.0


class BatchWorker:
    """Owns the work on batches. retry_s: until it tries again what the engine or the disk cannot do now."""

    def __init__(
        self, book: BatchRegistry, answer: AnswerCall, *, retry_s: float = RETRY_S
    ) -> None:
        self._book = book
        self._answers = RetryingCompleter(answer, retry_s=retry_s)
        self._retry_s = retry_s
        self._slots = anyio.Semaphore(SLOTS)

    @asynccontextmanager
    async def working(self) -> AsyncGenerator[None]:
        """Batches are answered for as long as the block lasts; what is unfinished then goes on at the next start."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._work)
                yield
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The work raises nothing: it is the block's own error, and its opener wants that, not a group of one.
            raise group.exceptions[0] from None

    async def _work(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                opened = await self._patiently(self._book.next_open)
                tasks.start_soon(self._process, opened)

    async def _process(self, opened: OpenBatch) -> None:
        """One batch from where it is to its end. A fault of ours leaves it as it is until the next start."""
        try:
            await self._answer_until_over(opened)
            ended = await self._patiently(partial(self._book.end, opened.batch.id))
            _log.info("%s ended: %s", ended.id, ended.outcomes)
        except PASSING:
            raise
        except BaseException:  # noqa: BLE001 -- the other batches and the server go on
            _log.exception("%s stops", opened.batch.id)

    async def _answer_until_over(self, opened: OpenBatch) -> None:
        """Until each request has its result, or the batch is canceled or expired, which ends answers in the middle."""
        left_s = opened.batch.expires_at - self._book.clock()
        with anyio.move_on_after(max(0.0, left_s)):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_leave_when, opened.canceled, tasks.cancel_scope)
                waiting = deque(await self._patiently(partial(self._book.waiting, opened.batch)))
                async with anyio.create_task_group() as answering:
                    for _ in range(SLOTS):
                        answering.start_soon(self._answer_each, opened.batch, waiting)
                tasks.cancel_scope.cancel()

    async def _answer_each(self, batch: Batch, waiting: deque[WaitingRequest]) -> None:
        """Time is looked at before each: a machine that slept has lost more of it than its timers know."""
        while waiting and self._book.clock() < batch.expires_at:
            async with self._slots:
                if waiting:
                    await self._answer(batch, waiting.popleft())

    async def _answer(self, batch: Batch, request: WaitingRequest) -> None:
        params = await self._patiently(partial(self._book.params, batch, request))
        result = await self._answers.result(params)
        line = BatchResultLine(custom_id=request.custom_id, result=result)
        await self._patiently(partial(self._book.keep, batch, line))

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns, once the disk lets it."""
        while True:
            try:
                return await work()
            except (OSError, DiskFullError) as error:
                _log.warning("message batches wait for the disk: %s", error)
            await anyio.sleep(self._retry_s)


async def _leave_when(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
