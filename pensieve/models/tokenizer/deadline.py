"""A time limit for work that nothing can end from outside: a tokenizer's, a server's that never ends its answer."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(limit_s: float, work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises. Raises TimeoutError after the limit.

    Work that takes longer goes on in a thread of its own, which ends with the process.
    """
    values: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            values.append(work())
        except BaseException as error:  # noqa: BLE001 -- it is raised where the work is awaited
            errors.append(error)

    thread = threading.Thread(target=run, name="with a deadline", daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not values:
        raise TimeoutError
    return values[0]
