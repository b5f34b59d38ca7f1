"""Create private folders and files (private_files.py) with errors written for people."""

from pathlib import Path

from pensieve import private_files
from pensieve.errors import NotWritableError
from pensieve.private_files import NotOursError

_ELSEWHERE = "Remove it, or keep pensieve's files elsewhere: export PENSIEVE_HOME=~/pensieve"


def make_private(folder: Path) -> None:
    """Make `folder` and its missing parents, readable by this user alone whatever the umask.

    Raises `NotWritableError` if it cannot be made, or is unsafe to use.
    """
    try:
        private_files.make_folder(folder)
    except NotOursError as error:
        raise NotWritableError(
            f"The folder {folder} is not used: {error.strerror}.", hint=_ELSEWHERE
        ) from error
    except OSError as error:
        raise NotWritableError(
            f"The folder {folder} cannot be made: {error.strerror}.", hint=_ELSEWHERE
        ) from error


def open_private(path: Path, flags: int) -> int:
    """Open like `private_files.open_private`. Raises `NotWritableError`."""
    try:
        return private_files.open_private(path, flags)
    except OSError as error:
        raise NotWritableError(
            f"The file {path} cannot be opened: {error.strerror}.", hint=_ELSEWHERE
        ) from error
