"""The crossing from the event loop to worker threads, for work that blocks or takes long.

An error that comes back keeps nothing of what its function worked on. It would: anyio's frame holds
a future, that the error, and that the frames that it passed through, in a cycle that only a full
garbage collection ends. Twenty refused bodies of 31 MiB kept 500 MB (2026-11, Linux).
"""

import traceback
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


async def run_in_thread(
    work: Callable[[], T], *, limiter: anyio.CapacityLimiter | None = None
) -> T:
    """Return what `work` returns, run in a worker thread. Raises what it raises."""
    return await anyio.to_thread.run_sync(partial(_run, work), limiter=limiter)


def _run(work: Callable[[], T]) -> T:
    try:
        return work()
    except Exception as error:
        _forget_locals(error)
        raise


def _forget_locals(error: BaseException | None) -> None:
    """Clear the frames of `error` and of those before it; drop those that nobody is shown."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        if error.__suppress_context__:
            error.__context__ = None
        error = error.__cause__ or error.__context__
