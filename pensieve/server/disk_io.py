"""Work on the disk, off the event loop: a crossing between threads. What a full disk means is said here once."""

import errno
from collections.abc import Callable
from typing import TypeVar

from pensieve.errors import DiskFullError
from pensieve.server.worker_thread import run_in_thread

T = TypeVar("T")


async def run_disk_io(work: Callable[[], T]) -> T:
    """What `work` returns, done in a worker thread. Raises what it raises, or `DiskFullError` where that is why."""
    try:
        return await run_in_thread(work)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFullError("The disk is full: nothing more can be kept.") from error
        raise
