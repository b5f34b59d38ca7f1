"""Work on the disk, off the event loop: a crossing between threads. What a full disk means is said here once."""

import errno
from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread

from pensieve.errors import DiskFullError

T = TypeVar("T")


async def on_disk(work: Callable[[], T]) -> T:
    """What `work` returns, done in a worker thread. Raises what it raises, or `DiskFullError` where that is why."""
    try:
        return await anyio.to_thread.run_sync(work)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFullError("The disk is full: nothing more can be kept.") from error
        raise
