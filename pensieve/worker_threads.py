"""Runs work that blocks or takes long in worker threads, off the event loop or with a deadline.

Disk I/O and parsing use anyio's threads. A tokenizer cannot be cancelled, so work with a deadline
runs in daemon threads: work that exceeds it continues, and ends with the process at the latest.

An error comes back as a value. _Raised through anyio it would be part of a reference cycle: anyio's
frame holds a future, which holds the error, which holds the frames that it passed through, and one
of those holds the request body. Twenty refused bodies of 31 MiB kept 500 MB until the next full
garbage collection (2026-11, Linux).
"""

import asyncio
import contextvars
import errno
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

import anyio
import anyio.to_thread

from pensieve.errors import DiskFullError, EngineBusyError, StorageError

_log = logging.getLogger("pensieve.server")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Raised:
    """The outcome of work that raised `error`."""

    error: BaseException


async def run_in_thread(work: Callable[[], T]) -> T:
    """Raises what `work` raises."""
    return _unwrap(await anyio.to_thread.run_sync(partial(_attempt, work)))


async def run_disk_io(work: Callable[[], T]) -> T:
    """Raises what `work` raises, `DiskFullError` for a full disk or an exhausted quota, and
    `StorageError` for what cannot be read or written.
    """
    try:
        return await run_in_thread(work)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFullError("The disk is full: nothing more can be stored.") from error
        if error.errno == errno.EIO:
            _log.error("failed to read or write stored data: %s", error)
            raise StorageError(
                "What is stored here cannot be read or written. If the log names a damaged"
                " database, this sets it aside: pensieve restart"
            ) from error
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
        outcomes: list[T | _Raised] = []
        ended = self._begin(work, outcomes)
        with anyio.fail_after(self._limit_s):
            await ended.wait()
        return _unwrap(outcomes.pop())

    def _begin(self, work: Callable[[], T], outcomes: list[T | _Raised]) -> anyio.Event:
        """Return the event of its end, when its outcome is in `outcomes`."""
        ended = anyio.Event()
        loop = asyncio.get_running_loop()

        def end(outcome: T | _Raised) -> None:
            self._slots.release()
            outcomes.append(outcome)
            ended.set()

        def report(outcome: T | _Raised) -> None:
            # The loop is closed if the process is ending.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end, outcome)

        try:
            _start(work, report)
        except BaseException:
            self._slots.release()
            raise
        return ended


def within(limit_s: float, work: Callable[[], T]) -> T:
    """Return or raise what `work` does. Raises TimeoutError after the limit; `work` continues."""
    outcomes: SimpleQueue[T | _Raised] = SimpleQueue()
    _start(work, outcomes.put)
    try:
        outcome = outcomes.get(timeout=limit_s)
    except Empty:
        raise TimeoutError from None
    try:
        return _unwrap(outcome)
    finally:
        del outcome


def _start(work: Callable[[], T], on_end: Callable[[T | _Raised], object]) -> None:
    """Run `work` in a new daemon thread, then `on_end` with the outcome, in the same thread."""
    context = contextvars.copy_context()
    threading.Thread(
        target=context.run, args=(lambda: on_end(_attempt(work)),), name="deadline", daemon=True
    ).start()


def _attempt(work: Callable[[], T]) -> T | _Raised:
    """Return what `work` returns, or `_Raised` with its error."""
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 -- raised again by `_unwrap`
        return _Raised(error)


def _unwrap(outcome: T | _Raised) -> T:
    """Return the value, or raise the error. The caller must not keep a reference to `outcome`."""
    if not isinstance(outcome, _Raised):
        return outcome
    try:
        raise outcome.error
    finally:
        # This frame is part of the error's traceback.
        del outcome
