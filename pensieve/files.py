"""Files that exist whole or not at all, whatever happens to the process or the machine in the middle of writing."""

import fcntl
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

# What a crash may leave behind; never read, removed by whoever owns the folder.
TEMPORARY = ".writing"


def write_atomically(
    path: Path, content: bytes | Iterable[bytes | memoryview], *, mode: int = 0o600
) -> int:
    """Write `path` under a temporary name, sync it, and rename it over what was there; how many bytes. Raises OSError."""
    pieces = [content] if isinstance(content, bytes) else content
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb"
        ) as output:
            written = sum(output.write(piece) for piece in pieces)
            output.flush()
            sync(output.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return written


def file_behind(stream: TextIO | None) -> Path | None:
    """The regular file that `stream` writes to; None where it is a terminal, a pipe, closed or removed."""
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


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Make a file's content durable. On macOS, fsync leaves it in the drive's own cache; F_FULLFSYNC does not."""
    if full_sync := getattr(fcntl, "F_FULLFSYNC", None):
        fcntl.fcntl(descriptor, full_sync)
    else:
        os.fsync(descriptor)
