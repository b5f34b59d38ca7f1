"""One server per home: a lock file that the kernel frees when its holder dies, however it dies."""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from pensieve import private_files
from pensieve.daemon.private_dirs import make_private, open_private
from pensieve.paths import Paths

# A sweep holds the lock for an instant; a server that wants it outwaits that.
TIMEOUT_S = 0.5
RETRY_S = 0.02


@contextmanager
def acquire(paths: Paths) -> Generator[bool]:
    """Hold the lock while in the block; False where another process holds it.

    Coming in, a record that a dead server left is removed; going out, record and lock file are.
    """
    make_private(paths.state)
    descriptor = _acquire(paths)
    if descriptor is None:
        yield False
        return
    try:
        paths.server_file.unlink(missing_ok=True)
        yield True
    finally:
        paths.server_file.unlink(missing_ok=True)
        # Still held: whoever waits on this inode finds it unlinked and opens the path anew.
        paths.lock_file.unlink(missing_ok=True)
        os.close(descriptor)


def is_held(paths: Paths) -> bool:
    """Whether a server of this home lives, from starting to its very end."""
    try:
        descriptor = private_files.open_private(paths.lock_file, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def remove_stale(paths: Paths) -> None:
    """Remove what a killed server left. Does nothing while one lives."""
    if paths.state.exists():
        with acquire(paths):
            pass


def _acquire(paths: Paths) -> int | None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        descriptor = open_private(paths.lock_file, os.O_RDWR | os.O_CREAT)
        if _try(descriptor, fcntl.LOCK_EX) and _is_at_its_path(descriptor, paths):
            return descriptor
        # Those who look at the lock (`is_held`) share it, however many they are; a server does not.
        is_held = not _try(descriptor, fcntl.LOCK_SH)
        os.close(descriptor)
        if is_held and time.monotonic() > deadline:
            return None
        time.sleep(RETRY_S)


def _try(descriptor: int, kind: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return True
    return False


def _is_at_its_path(descriptor: int, paths: Paths) -> bool:
    """False where the last holder unlinked the file between our opening and our locking it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), paths.lock_file.stat())
    return False
