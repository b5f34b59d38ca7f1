"""Folders and files that only their owner can read. Knows nothing of what is in them."""

import os
import stat
from pathlib import Path

from pensieve.errors import NotWritableError

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600


def make_private(folder: Path) -> None:
    """Make `folder` and its missing parents, readable by this user alone whatever the umask.

    Raises `NotWritableError` where it cannot be made, is a symbolic link, or is another user's: whoever planted
    it could read or replace what pensieve writes.
    """
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise NotWritableError(
            f"The folder {folder} cannot be made: {error.strerror}.", hint=_ELSEWHERE
        ) from error
    if problem := _problem(status):
        raise NotWritableError(f"The folder {folder} {problem}.", hint=_ELSEWHERE)
    folder.chmod(PRIVATE_FOLDER)


_ELSEWHERE = "Remove it, or keep pensieve's files elsewhere: export PENSIEVE_HOME=~/pensieve"


def _problem(status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link, so it is not used"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.geteuid():
        return "belongs to another user, so it is not used"
    return ""


def open_private(path: Path, flags: int) -> int:
    """A file descriptor of `path`, made for its owner alone where `flags` create it; never through a link."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
        os.fchmod(descriptor, PRIVATE_FILE)
    except OSError as error:
        raise NotWritableError(
            f"The file {path} cannot be opened: {error.strerror}.", hint=_ELSEWHERE
        ) from error
    return descriptor
