"""Create and open the folders and files that belong to this user alone.

All access to private files goes through here. Modes are set whatever the umask. A link, a special
file, or a folder or file of another user is never used: its owner could read or replace what
pensieve writes. Raises only OSError; `NotOursError` describes what is wrong.
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# Also covers files that libraries and child processes create.
PRIVATE_UMASK = 0o077


class NotOursError(PermissionError):
    """A link, a special file or another user's file is at the path; `strerror` describes it."""

    def __init__(self, problem: str, path: Path) -> None:
        super().__init__(errno.EPERM, problem, str(path))


def make_missing(folder: Path) -> None:
    """Make `folder` and its missing parents; an existing one is not changed."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def make_folder(
    folder: Path,
    *,
    # Accept a link of this user to a folder of theirs, for example on another disk. Its mode is not
    # changed: that disk may not support modes.
    may_be_link: bool = False,
) -> None:
    """Make `folder` and its missing parents; an existing one becomes private."""
    make_missing(folder)
    if may_be_link and folder.is_symlink():
        _check_owner(folder.lstat(), folder)
        _check_owner(folder.stat(), folder)
        return
    if folder.is_symlink():
        raise NotOursError("it is a symbolic link", folder)
    # By descriptor, so that the checked folder is the changed one.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_owner(os.fstat(descriptor), folder)
        os.fchmod(descriptor, PRIVATE_FOLDER)
    finally:
        os.close(descriptor)


def claim(folder: Path) -> None:
    """Check an existing folder before reading: it must be this user's, root's, or this user's link
    to one of those.

    A folder of this user that others can write to becomes private.
    """
    is_link = folder.is_symlink()
    if is_link:
        _check_owner(folder.lstat(), folder)
    status = folder.stat()
    if status.st_uid == 0 != os.geteuid():
        return
    _check_owner(status, folder)
    if status.st_mode & OTHERS_WRITE and not is_link:
        folder.chmod(PRIVATE_FOLDER)


def open_private(path: Path, flags: int) -> int:
    """Return a descriptor of `path`, created if `flags` say so; never through a link, and only of a
    regular file of this user.
    """
    # Without O_NONBLOCK, opening a pipe without a writer would block.
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, PRIVATE_FILE)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EMLINK}:
            raise NotOursError("it is a symbolic link", path) from error
        raise
    try:
        status = os.fstat(descriptor)
        _check_owner(status, path)
        if not stat.S_ISREG(status.st_mode):
            raise NotOursError("it is not a regular file", path)
        if stat.S_IMODE(status.st_mode) != PRIVATE_FILE:
            os.fchmod(descriptor, PRIVATE_FILE)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_private(path: Path, max_bytes: int = -1) -> bytes:
    """Return a file's content, or its first `max_bytes`."""
    with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
        return file.read(max_bytes)


@contextmanager
def private_umask() -> Generator[None]:
    """Make files that libraries and child processes create in the block private.

    Changes the umask of the whole process.
    """
    before = os.umask(PRIVATE_UMASK)
    try:
        yield
    finally:
        os.umask(before)


def _check_owner(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.geteuid():
        raise NotOursError("it belongs to another user", path)
