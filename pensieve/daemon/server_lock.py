"""One server per home: a lock file (flock) that the kernel releases when its holder ends.

The file holds its holder's process id and start, so that a server without a readable record can be
found.
"""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pensieve import private_files
from pensieve.daemon.private_dirs import make_private, open_private
from pensieve.daemon.processes import is_running, start_of
from pensieve.paths import Paths

# `remove_stale` holds the lock for an instant; a starting server waits longer than that.
TIMEOUT_S = 0.5
RETRY_S = 0.02
MAX_BYTES = 100


@dataclass(frozen=True, slots=True)
class Holder:
    pid: int
    process_start: str


@contextmanager
def acquire(paths: Paths) -> Generator[bool]:
    """Hold the lock in the block as the server; yield False if another process holds it.

    Removes a dead server's record on entry, and the record and the lock file on exit.
    """
    with _exclusive(paths) as descriptor:
        if descriptor is not None:
            text = f"{os.getpid()} {start_of(os.getpid())}\n"
            with suppress(OSError):  # a full disk
                os.truncate(descriptor, 0)
                os.write(descriptor, text.encode())
        yield descriptor is not None


@contextmanager
def _exclusive(paths: Paths) -> Generator[int | None]:
    """Yield the descriptor of the locked file; None if another process holds the lock."""
    make_private(paths.state)
    descriptor = _acquire(paths)
    if descriptor is None:
        yield None
        return
    try:
        paths.server_file.unlink(missing_ok=True)
        yield descriptor
    finally:
        paths.server_file.unlink(missing_ok=True)
        # While still locked: a process that waits for this inode finds it unlinked and reopens.
        paths.lock_file.unlink(missing_ok=True)
        os.close(descriptor)


def is_held(paths: Paths) -> bool:
    """Whether a server of this home runs, from its start to its very end."""
    try:
        descriptor = private_files.open_private(paths.lock_file, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def age_s(paths: Paths) -> float:
    """Return for how long the lock has been held, by the time of its last holder's entry; 0 without
    a lock file.
    """
    with suppress(OSError):
        return time.time() - paths.lock_file.stat().st_mtime
    return 0.0


def holder(paths: Paths) -> Holder | None:
    """Return the server that holds the lock; None if none does, or if it has not written who it
    is, as earlier versions do not.
    """
    if not is_held(paths):
        return None
    with suppress(OSError, ValueError):
        pid, start = private_files.read_private(paths.lock_file, MAX_BYTES).decode().split()
        if is_running(int(pid), start):
            return Holder(int(pid), start)
    return None


def remove_stale(paths: Paths) -> None:
    """Remove the files of a killed server. Does nothing while one runs."""
    if paths.state.exists():
        with _exclusive(paths):
            pass


def _acquire(paths: Paths) -> int | None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        descriptor = open_private(paths.lock_file, os.O_RDWR | os.O_CREAT)
        if _try_lock(descriptor, fcntl.LOCK_EX) and _is_at_its_path(descriptor, paths):
            return descriptor
        # `is_held` in other processes takes the lock shared; a server takes it exclusively.
        is_held = not _try_lock(descriptor, fcntl.LOCK_SH)
        os.close(descriptor)
        if is_held and time.monotonic() > deadline:
            return None
        time.sleep(RETRY_S)


def _try_lock(descriptor: int, kind: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return True
    return False


def _is_at_its_path(descriptor: int, paths: Paths) -> bool:
    """Return False if the last holder unlinked the file between our opening and our locking it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), paths.lock_file.stat())
    return False
