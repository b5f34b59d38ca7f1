"""SQLite databases of what clients store. One folder holds one database and the files next to it.

There are four, because they are kept and removed in different ways. `state/batches` and
`state/files` are promises to clients: a commit is on the drive, after a power cut as well.
`state/responses` and `prefixes/answers` survive a killed process and may lose their end in a power
cut, after which clients send more; `pensieve cache clear` removes the latter. What a named key
stores is its own: `owners` has its name, and no row for the server's own key. What is large and
read as bytes stays a file next to its database (uploads, bodies of batches): in SQLite it would be
written three times.

Write-ahead logging: readers and writers do not wait for each other. A full disk raises ENOSPC and
the transaction leaves nothing. A folder whose database is damaged, or of another version, becomes
`<folder>.broken` as a whole, or `.broken.2` and so on next to an earlier one. All calls block, so
callers make them in worker threads.
"""

import errno
import logging
import os
import shlex
import sqlite3
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection

from pensieve.atomic_files import set_aside, sync_path, write_atomically
from pensieve.private_files import make_folder, open_private

__all__ = ["Connection", "Database", "remove_owner", "set_owner"]

_log = logging.getLogger("pensieve.server")

VERSION = 1
DAMAGED = -1  # in place of the version
# SQLite creates the last two with the mode of the first.
FILES = ("", "-wal", "-shm")

_UNREADABLE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
# `fullfsync` flushes the drive's own cache on macOS, which fsync(2) does not.
_PRAGMAS = """
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    PRAGMA journal_size_limit = 4194304;
    PRAGMA synchronous = {synchronous};
    PRAGMA fullfsync = ON;
    PRAGMA checkpoint_fullfsync = ON;
"""
# 32 MB of free pages at most, so that no write takes long.
_SHRINK = "PRAGMA incremental_vacuum(8192)"
# A table of its own, so that databases of earlier versions need no other change.
_OWNERS = "CREATE TABLE IF NOT EXISTS owners (id TEXT PRIMARY KEY, owner TEXT NOT NULL) STRICT;"
# Deleting takes space first, in the log. This much is kept for it on a full disk.
RESERVE_BYTES = 2**20


class Database:
    """Owns `<folder>/<name of the folder>.db`, which is created with the first write."""

    def __init__(self, folder: Path, schema: str, *, is_durable: bool = True) -> None:
        self.folder = folder
        self._path = folder.absolute() / f"{folder.name}.db"
        self._schema = schema
        self._is_durable = is_durable
        self._reserve = folder / "reserve"
        self._writing = threading.RLock()
        self._writer: Connection | None = None

    @contextmanager
    def write(self) -> Generator[Connection]:
        """Commit what the block does, or nothing if it raises. Raises OSError.

        Waits for other writers.
        """
        with self._writing:
            writer = self._open()
            with self._os_errors(), writer:
                writer.execute("BEGIN IMMEDIATE")
                yield writer
            # Needs some space itself, so a full disk may refuse it: the next write tries again.
            with suppress(sqlite3.Error):
                writer.executescript(_SHRINK)

    @contextmanager
    def free(self) -> Generator[Connection]:
        """Like `write`, for what leads to free space. A full disk has the reserve left for it."""
        self._reserve.unlink(missing_ok=True)
        with self.write() as connection:
            yield connection
        self._fill_reserve()

    @contextmanager
    def read(self) -> Generator[Connection]:
        """Yield what was committed before; a missing database is empty. Raises OSError."""
        if self._writer is None and self._path.exists():
            self._open()
        with self._os_errors(), closing(self._reader()) as reader:
            yield reader

    def close(self) -> None:
        """The next use opens it again."""
        with self._writing:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def __del__(self) -> None:
        # Python 3.13 warns of a connection that is not closed.
        self.close()

    def _reader(self) -> Connection:
        if self._path.exists():
            return self._connect()
        reader = sqlite3.connect(":memory:", check_same_thread=False)
        reader.executescript(self._schema + _OWNERS)
        return reader

    def _open(self) -> Connection:
        """Return the connection that writes; opened again if the file was removed meanwhile."""
        with self._writing, self._os_errors():
            if self._writer is None or not self._path.exists():
                self.close()
                try:
                    self._writer = self._prepare()
                except sqlite3.DatabaseError as error:
                    if not _is_unreadable(error):
                        raise
                    self._set_aside(error)
                    self._writer = self._prepare()
            return self._writer

    def _prepare(self) -> Connection:
        make_folder(self.folder)
        # Before SQLite opens them: closing a descriptor of a file drops the process's locks on it.
        for suffix in FILES:
            with suppress(FileNotFoundError):
                flags = os.O_RDWR if suffix else os.O_RDWR | os.O_CREAT
                os.close(open_private(Path(f"{self._path}{suffix}"), flags))
        connection = self._connect()
        try:
            self._initialize(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _fill_reserve(self) -> None:
        # Not of zeros, which a file system may store without taking space.
        with suppress(OSError):
            if self._is_durable and not self._reserve.exists():
                write_atomically(self._reserve, os.urandom(RESERVE_BYTES), is_durable=False)

    def _initialize(self, connection: Connection) -> None:
        synchronous = "FULL" if self._is_durable else "NORMAL"
        connection.executescript(_PRAGMAS.format(synchronous=synchronous))
        version = _version(connection)
        if version not in {0, VERSION}:
            error = sqlite3.DatabaseError(
                "damage was found in it"
                if version == DAMAGED
                else f"it is of version {version}, not {VERSION}"
            )
            error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
            raise error
        if version == 0:
            connection.executescript(
                f"BEGIN IMMEDIATE; {self._schema} PRAGMA user_version = {VERSION}; COMMIT"
            )
        connection.execute(_OWNERS)
        self._fill_reserve()
        sync_path(self.folder)

    def _connect(self) -> Connection:
        # `rw` creates no file, so that only `open_private` does.
        return sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )

    def _set_aside(self, error: sqlite3.Error) -> None:
        self.close()
        aside = set_aside(self.folder)
        _log.error(
            "failed to read %s (%s), starting without what it holds; its folder is moved."
            " To free the space: rm -r %s",
            self._path,
            error,
            shlex.quote(str(aside)),
        )

    @contextmanager
    def _os_errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if _is_unreadable(error):
                self._mark_damaged(error)
            number = errno.ENOSPC if _code(error) in _FULL else errno.EIO
            raise OSError(number, str(error), str(self._path)) from error

    def _mark_damaged(self, error: sqlite3.Error) -> None:
        """Make the next start set the folder aside: connections of others may be open now."""
        with self._writing, suppress(sqlite3.Error):
            if self._writer is None or _version(self._writer) == DAMAGED:
                return
            self._writer.execute(f"PRAGMA user_version = {DAMAGED}")
            _log.error(
                "%s is damaged (%s). To go on without what it holds: pensieve restart",
                self._path,
                error,
            )


def set_owner(connection: Connection, item_id: str, owner: str) -> None:
    if owner:
        connection.execute("INSERT OR REPLACE INTO owners VALUES (?, ?)", (item_id, owner))


def remove_owner(connection: Connection, item_id: str) -> None:
    connection.execute("DELETE FROM owners WHERE id = ?", (item_id,))


def _version(connection: Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _is_unreadable(error: sqlite3.Error) -> bool:
    return _code(error) & 0xFF in _UNREADABLE


def _code(error: sqlite3.Error) -> int:
    # Python's own errors, such as for text that is not UTF-8, have none.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
