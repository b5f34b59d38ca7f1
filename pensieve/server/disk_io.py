"""Runs disk I/O in worker threads, off the event loop. A full disk becomes `DiskFullError` here."""

import errno
from collections.abc import Callable
from typing import TypeVar

from pensieve.errors import DiskFullError
from pensieve.server.worker_thread import run_in_thread

T = TypeVar("T")


async def run_disk_io(work: Callable[[], T]) -> T:
    """Raises what `work` raises, or `DiskFullError` for a full disk or an exhausted quota."""
    try:
        return await run_in_thread(work)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFullError("The disk is full: nothing more can be stored.") from error
        raise
