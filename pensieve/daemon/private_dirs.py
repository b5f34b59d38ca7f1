"""Private folders and files (private_files.py), with what is wrong with them in words for a person."""

from pathlib import Path

from pensieve import private_files
from pensieve.errors import NotWritableError
from pensieve.private_files import NotOursError

_ELSEWHERE = "Remove it, or keep pensieve's files elsewhere: export PENSIEVE_HOME=~/pensieve"


def make_private(folder: Path) -> None:
    """Make `folder` and its missing parents, readable by this user alone whatever the umask.

    Raises `NotWritableError` where it cannot be made, or is not ours.
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
    """As private_files' own. Raises `NotWritableError`."""
    try:
        return private_files.open_private(path, flags)
    except OSError as error:
        raise NotWritableError(
            f"The file {path} cannot be opened: {error.strerror}.", hint=_ELSEWHERE
        ) from error
