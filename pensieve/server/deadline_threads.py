"""Threads for work that nothing can end from outside, such as a tokenizer's: nobody waits for one for ever.

A crossing between threads. What takes too long is left to itself and keeps its place until it is
done; where all places are taken, work waits, then is refused. Such a thread ends with the process.
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
    """What became of work in a thread, for the event loop that began it."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self._value: T | Raised | None = None

    def put(self, value: T | Raised) -> None:
        self._value = value

    def take(self) -> T | Raised:
        """Return the value, and hold it no longer."""
        value, self._value = self._value, None
        return value  # pyright: ignore[reportReturnType] -- it is done


class DeadlineThreads:
    """At most `count` threads at once; who waits for one does so for `limit_s` at most."""

    def __init__(self, count: int, limit_s: float) -> None:
        self._places = anyio.Semaphore(count)
        self._limit_s = limit_s

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises.

        Raises TimeoutError where it takes longer than the limit, and `EngineBusyError` where no
        place became free for as long.
        """
        try:
            with anyio.fail_after(self._limit_s):
                await self._places.acquire()
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
            self._places.release()
            outcome.done.set()

        def run() -> None:
            outcome.put(attempt(work))
            # The loop may be closed by now: the process ends.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end)

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(run,), name="prompt", daemon=True)
        try:
            thread.start()
        except BaseException:
            self._places.release()
            raise
        return outcome
