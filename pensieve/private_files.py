"""The one door to folders and files that are this user's alone: how they are made, and what is refused instead of used.

Modes hold whatever the umask. A link, another user's folder or file, or what is neither is never used: whoever planted it
could read or replace what pensieve writes. Raises OSError alone; `NotOursError` says what is wrong with what is there.
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
# What libraries and programs that we start create is this user's alone too.
PRIVATE_UMASK = 0o077


class NotOursError(PermissionError):
    """Something else is in the place of a folder or file of ours; `strerror` says what it is."""

    def __init__(self, problem: str, path: Path) -> None:
        super().__init__(errno.EPERM, problem, str(path))


def make_missing(folder: Path) -> None:
    """Make `folder` and its missing parents; one that is there is left as it is."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def make_folder(folder: Path, *, may_be_link: bool = False) -> None:
    """Make `folder` and its missing parents; one that is there becomes private.

    may_be_link: it may be a link of this user's own to a folder of theirs, on another disk for instance. That is left as it
    is: its disk may know no modes.
    """
    make_missing(folder)
    if may_be_link and folder.is_symlink():
        _check_owner(folder.lstat(), folder)
        _check_owner(folder.stat(), folder)
        return
    if folder.is_symlink():
        raise NotOursError("it is a symbolic link", folder)
    # By descriptor: what is checked is what is changed.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_owner(os.fstat(descriptor), folder)
        os.fchmod(descriptor, PRIVATE_FOLDER)
    finally:
        os.close(descriptor)


def claim(folder: Path) -> None:
    """Check a folder that is there to be read: this user's, root's, or a link of this user's to one of those.

    One that is ours and that others could write to becomes private.
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
    """Return a descriptor of the file `path`, made where `flags` create it; never through a link, never of another's."""
    # Opening a pipe that nobody writes to would wait for ever.
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
            raise NotOursError("it is no file", path)
        if stat.S_IMODE(status.st_mode) != PRIVATE_FILE:
            os.fchmod(descriptor, PRIVATE_FILE)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_private(path: Path, at_most: int = -1) -> bytes:
    """Return a file's content, or its first bytes."""
    with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
        return file.read(at_most)


@contextmanager
def private_umask() -> Generator[None]:
    """Whatever is created in the block, also by libraries and child processes, is this user's alone. Of the whole process."""
    before = os.umask(PRIVATE_UMASK)
    try:
        yield
    finally:
        os.umask(before)


def _check_owner(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.geteuid():
        raise NotOursError("it belongs to another user", path)
