"""Threads with a deadline for work that cannot be canceled, such as a tokenizer's.

The request pipeline renders prompts in them. Work that exceeds its deadline runs on and occupies
its slot until it is done; when all slots are occupied, new work waits, then is refused. The threads
are daemons: they end with the process.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import anyio

from pensieve.errors import EngineBusyError
from pensieve.server.worker_thread import Raised, attempt, unwrap

T = TypeVar("T")


class _Outcome(Generic[T]):
    """The result of work in a thread, for the event loop that started it."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self._value: T | Raised | None = None

    def put(self, value: T | Raised) -> None:
        self._value = value

    def take(self) -> T | Raised:
        """Return the value and drop the reference to it."""
        value, self._value = self._value, None
        return value  # pyright: ignore[reportReturnType] -- it is done


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
        outcome = self._begin(work)
        with anyio.fail_after(self._limit_s):
            await outcome.done.wait()
        return unwrap(outcome.take())

    def _begin(self, work: Callable[[], T]) -> _Outcome[T]:
        outcome = _Outcome[T]()
        loop = asyncio.get_running_loop()

        def end() -> None:
            self._slots.release()
            outcome.done.set()

        def run() -> None:
            outcome.put(attempt(work))
            # The loop is closed if the process is ending.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end)

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(run,), name="prompt", daemon=True)
        try:
            thread.start()
        except BaseException:
            self._slots.release()
            raise
        return outcome
