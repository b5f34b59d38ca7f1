"""Runs work that blocks or takes long in worker threads, off the event loop.

An error comes back as a value. Raised through anyio it would be part of a reference cycle: anyio's
frame holds a future, which holds the error, which holds the frames that it passed through, and one
of those holds the request body. Twenty refused bodies of 31 MiB kept 500 MB until the next full
garbage collection (2026-11, Linux).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Raised:
    """The outcome of work that raised `error`."""

    error: BaseException


async def run_in_thread(
    work: Callable[[], T], *, limiter: anyio.CapacityLimiter | None = None
) -> T:
    """Raises what `work` raises."""
    return unwrap(await anyio.to_thread.run_sync(partial(attempt, work), limiter=limiter))


def attempt(work: Callable[[], T]) -> T | Raised:
    """Return what `work` returns, or `Raised` with its error."""
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 -- raised again on the event loop
        return Raised(error)


def unwrap(outcome: T | Raised) -> T:
    """Return the value, or raise the error. The caller must not keep a reference to `outcome`."""
    if not isinstance(outcome, Raised):
        return outcome
    try:
        raise outcome.error
    finally:
        # This frame is part of the error's traceback.
        del outcome
