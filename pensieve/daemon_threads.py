"""Runs work that cannot be cancelled, such as a tokenizer's, in daemon threads, so that the caller can
stop waiting for it. Such a thread ends with the process at the latest.

An error comes back as a value. Raised through anyio it would be part of a reference cycle: anyio's
frame holds a future, which holds the error, which holds the frames that it passed through, and one
of those holds the request body. Twenty refused bodies of 31 MiB kept 500 MB until the next full
garbage collection (2026-11, Linux).
"""

import contextvars
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Raised:
    """The outcome of work that raised `error`."""

    error: BaseException


def attempt(work: Callable[[], T]) -> T | Raised:
    """Return what `work` returns, or `Raised` with its error."""
    try:
        return work()
    except BaseException as error:  # noqa: BLE001 -- raised again by `unwrap`
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


def start(work: Callable[[], T], on_end: Callable[[T | Raised], object]) -> None:
    """Run `work` in a new daemon thread, then `on_end` with the outcome, in the same thread."""
    context = contextvars.copy_context()
    threading.Thread(
        target=context.run, args=(lambda: on_end(attempt(work)),), name="deadline", daemon=True
    ).start()


def within(limit_s: float, work: Callable[[], T]) -> T:
    """Return or raise what `work` does. Raises TimeoutError after the limit; `work` continues."""
    outcomes: SimpleQueue[T | Raised] = SimpleQueue()
    start(work, outcomes.put)
    try:
        outcome = outcomes.get(timeout=limit_s)
    except Empty:
        raise TimeoutError from None
    try:
        return unwrap(outcome)
    finally:
        del outcome
