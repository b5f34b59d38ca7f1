"""Runs work that blocks or takes long in worker threads, off the event loop.

Disk I/O and parsing use anyio's threads. Prompts are rendered in threads with a deadline, since a
tokenizer cannot be cancelled: work that exceeds it continues and occupies its slot until it ends.
"""

import asyncio
import errno
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from pensieve.daemon_threads import Raised, attempt, start, unwrap
from pensieve.errors import DiskFullError, EngineBusyError

T = TypeVar("T")


async def run_in_thread(work: Callable[[], T]) -> T:
    """Raises what `work` raises."""
    return unwrap(await anyio.to_thread.run_sync(partial(attempt, work)))


async def run_disk_io(work: Callable[[], T]) -> T:
    """Raises what `work` raises, or `DiskFullError` for a full disk or an exhausted quota."""
    try:
        return await run_in_thread(work)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFullError("The disk is full: nothing more can be stored.") from error
        raise


class DeadlineThreads:
    """Runs work in at most `count` threads; a caller waits at most `limit_s` for a slot and for its
    result.
    """

    def __init__(self, count: int, limit_s: float) -> None:
        self._slots = anyio.Semaphore(count)
        self._limit_s = limit_s

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises.

        Raises TimeoutError if it takes longer than the limit, and `EngineBusyError` if no slot
        became free within the limit.
        """
        try:
            with anyio.fail_after(self._limit_s):
                await self._slots.acquire()
        except TimeoutError:
            raise EngineBusyError("The server renders as many prompts as it can.") from None
        outcomes: list[T | Raised] = []
        ended = self._start(work, outcomes)
        with anyio.fail_after(self._limit_s):
            await ended.wait()
        return unwrap(outcomes.pop())

    def _start(self, work: Callable[[], T], outcomes: list[T | Raised]) -> anyio.Event:
        """Return the event of its end, when its outcome is in `outcomes`."""
        ended = anyio.Event()
        loop = asyncio.get_running_loop()

        def end(outcome: T | Raised) -> None:
            self._slots.release()
            outcomes.append(outcome)
            ended.set()

        def report(outcome: T | Raised) -> None:
            # The loop is closed if the process is ending.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end, outcome)

        try:
            start(work, report)
        except BaseException:
            self._slots.release()
            raise
        return ended
