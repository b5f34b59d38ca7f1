"""A time limit for work that cannot be cancelled: a tokenizer's, or waiting for a server's
answer.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(limit_s: float, work: Callable[[], T]) -> T:
    """Return or raise what `work` does. Raises TimeoutError after the limit.

    After that the work continues in a daemon thread, which ends with the process.
    """
    values: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            values.append(work())
        except BaseException as error:  # noqa: BLE001 -- raised in the waiting thread
            errors.append(error)

    thread = threading.Thread(target=run, name="with a deadline", daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not values:
        raise TimeoutError
    return values[0]
