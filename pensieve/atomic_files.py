"""Write files that exist whole or not at all, whatever ends the process or the machine meanwhile.

Also: set aside what is broken, flush files to the drive, find the file of a stream, exclude folders
from backups.
"""

import errno
import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

# A crash can leave such a file. It is never read; the owner of the folder removes it.
TEMPORARY = ".writing"
BROKEN = ".broken"
MAX_BROKEN = 3
# Errors of fcntl(2) on file systems (SMB, NFS, some exFAT drivers) that cannot flush the drive's
# cache.
UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY})
# `tmutil addexclusion` sets it, and Time Machine skips such files. It does not read CACHEDIR.TAG.
BACKUP_ATTRIBUTE = "com.apple.metadata:com_apple_backup_excludeItem"
BACKUP_PROGRAM = "com.apple.backupd"

# Set an extended attribute of a file: path, attribute name, content. Raises OSError.
SetAttribute = Callable[[Path, str, bytes], None]


def write_atomically(
    path: Path,
    content: bytes | Iterable[bytes | memoryview],
    *,
    mode: int = 0o600,
    # True: the file is on the drive on return. False: a power cut can truncate or zero it, so use
    # that only for files that carry a checksum and can be lost.
    is_durable: bool = True,
) -> int:
    """Write `path` under a temporary name and rename it over an existing file; return the bytes
    written.

    Raises OSError, also where `path` is a device, a pipe or a folder.
    """
    pieces = [content] if isinstance(content, bytes) else content
    temporary = path.with_name(path.name + TEMPORARY)
    _check_replaceable(path)
    try:
        # A planted link is removed, or makes open() fail; it is never followed.
        temporary.unlink(missing_ok=True)
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb"
        ) as output:
            written = sum(output.write(piece) for piece in pieces)
            output.flush()
            if is_durable:
                sync(output.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if is_durable:
        sync_path(path.parent)
    return written


def set_aside(path: Path) -> Path:
    """Rename what cannot be read to the first free one of `set_aside_names`; return the new path.

    The earliest ones hold the most: if all are taken, only the last is replaced. Raises OSError.
    """
    path.lstat()
    names = set_aside_names(path)
    aside = next((each for each in names if not os.path.lexists(each)), names[-1])
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)
    return path.rename(aside)


def set_aside_names(path: Path) -> list[Path]:
    numbers = ("", *(f".{number}" for number in range(2, MAX_BROKEN + 1)))
    return [path.with_name(f"{path.name}{BROKEN}{number}") for number in numbers]


def _check_replaceable(path: Path) -> None:
    """Raise OSError for a path that a rename would destroy: root could replace even /dev/zero."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise FileExistsError(errno.EEXIST, "not a regular file", str(path))


def file_of(stream: TextIO | None) -> Path | None:
    """Return the regular file that `stream` writes to; None for a terminal, a pipe, a closed stream
    or a removed file.
    """
    try:
        descriptor = stream.fileno() if stream else -1
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        if get_path := getattr(fcntl, "F_GETPATH", None):
            path = Path(os.fsdecode(fcntl.fcntl(descriptor, get_path, bytes(1024)).rstrip(b"\0")))
        else:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
        return path if path.exists() else None
    except (OSError, ValueError):
        return None


def sync_path(path: Path) -> None:
    """Make a file's content, or the renames and removals in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _full_sync() -> Callable[[int], Any] | None:
    """Return the call that flushes the drive's own cache, which fsync(2) does not do on macOS; None
    where fsync does.
    """
    command: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    return None if command is None else lambda descriptor: fcntl.fcntl(descriptor, command)


def sync(
    descriptor: int,
    full_sync: Callable[[int], Any] | None = _full_sync(),  # noqa: B008 -- a constant
) -> None:
    """Make what was written to an open file durable. Raises OSError if the drive refuses."""
    if full_sync is not None:
        try:
            full_sync(descriptor)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        else:
            return
    os.fsync(descriptor)


def exclude_from_backups(
    folder: Path, set_attribute: SetAttribute | None = None, platform: str = sys.platform
) -> None:
    """Make Time Machine skip `folder`, whose content can be fetched or computed again. Errors are
    ignored.
    """
    if platform != "darwin":
        return
    import plistlib

    content = plistlib.dumps(BACKUP_PROGRAM, fmt=plistlib.FMT_BINARY)
    with suppress(OSError):
        (set_attribute or _set_attribute)(folder, BACKUP_ATTRIBUTE, content)


def _set_attribute(path: Path, name: str, content: bytes) -> None:
    """Call setxattr(2) of macOS, which takes a position and options; Python wraps only Linux's."""
    import ctypes

    setxattr = ctypes.CDLL(None, use_errno=True).setxattr
    setxattr.argtypes = (
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint32,
        ctypes.c_int,
    )
    if setxattr(os.fsencode(path), name.encode(), content, len(content), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"setxattr {name}", str(path))
