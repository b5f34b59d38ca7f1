"""The crossing from the event loop to worker threads, for work that blocks or takes long.

An error comes back as a value. Raised through anyio it would stand in a cycle: anyio's frame holds
a future, that the error, that the frames that it passed through, and one of those holds the body.
Twenty refused bodies of 31 MiB kept 500 MB until the next full garbage collection (2026-11, Linux).
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
    """Stands for the value of work that raised `error`."""

    error: BaseException


async def run_in_thread(
    work: Callable[[], T], *, limiter: anyio.CapacityLimiter | None = None
) -> T:
    """Return what `work` returns, run in a worker thread. Raises what it raises."""
    return unwrap(await anyio.to_thread.run_sync(partial(attempt, work), limiter=limiter))


def attempt(work: Callable[[], T]) -> T | Raised:
    """Return what `work` returns, or what it raised."""
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 -- raised again on the event loop
        return Raised(error)


def unwrap(outcome: T | Raised) -> T:
    """Return the value, or raise the error. A caller must not hold `outcome` itself."""
    if not isinstance(outcome, Raised):
        return outcome
    try:
        raise outcome.error
    finally:
        # This frame is one of the error's own.
        del outcome
