"""Stores uploaded files: `<id>` is a file with the content, the metadata is in a database.

A file exists when both do. The content is written first and removed last, so a crash leaves at most
content without metadata, which the next upload removes. The metadata of an expired file stays for a
while, so that clients get an error that says so. All calls block, so callers make them in worker
threads; they may run concurrently.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from pensieve.api.base import new_id
from pensieve.atomic_files import write_atomically
from pensieve.errors import FileExpiredError, NotFoundError, StorageQuotaExceededError
from pensieve.server.database import Connection, Database, remove_owner, set_owner

# How long the metadata of an expired file stays.
EXPIRED_RETENTION_S = 30 * 24 * 3600.0

_SCHEMA = """
CREATE TABLE files (
    id TEXT PRIMARY KEY,
    filename TEXT NOT NULL,
    mime_type TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL
) STRICT;
"""
_ID = "file"
_LIST = """
SELECT files.*, coalesce(owner, '') AS owned_by FROM files LEFT JOIN owners USING (id)
WHERE owned_by = ? ORDER BY created_at DESC, id DESC
"""
_GET = """
SELECT files.*, coalesce(owner, '') AS owned_by FROM files LEFT JOIN owners USING (id)
WHERE owned_by = ? AND id = ?
"""


@dataclass(frozen=True, slots=True)
class StorageLimits:
    file_bytes: int = 32 * 1024**2
    stored_bytes: int = 1024**3
    files: int = 10_000


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Times are Unix seconds."""

    id: str
    filename: str
    mime_type: str
    size_bytes: int
    created_at: float
    expires_at: float | None
    owner: str = ""  # name of the key


@dataclass(frozen=True, slots=True)
class FileContent:
    media_type: str
    content: bytes


class FileStore:
    def __init__(
        self,
        folder: Path,
        *,
        limits: StorageLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._database = Database(folder, _SCHEMA)
        self.limits = limits or StorageLimits()
        self._clock = clock

    def close(self) -> None:
        self._database.close()

    def add(
        self,
        content: bytes,
        filename: str,
        mime_type: str,
        lifetime_s: int | None = None,
        owner: str = "",
    ) -> StoredFile:
        """Raises `StorageQuotaExceededError`, OSError."""
        with self._database.write() as connection:
            self._remove_expired(connection)
            self._check_quota(connection, len(content))
            now = self._clock()
            file = StoredFile(
                id=new_id(_ID),
                filename=filename,
                mime_type=mime_type,
                size_bytes=len(content),
                created_at=now,
                expires_at=None if lifetime_s is None else now + lifetime_s,
                owner=owner,
            )
            write_atomically(self._folder / file.id, content)
            columns = astuple(file)[:-1]
            connection.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)", columns)
            set_owner(connection, file.id, owner)
        return file

    def list_files(self, owner: str = "") -> Sequence[StoredFile]:
        """Return the owner's files, newest first. Raises OSError."""
        with self._database.read() as connection:
            rows = connection.execute(_LIST, (owner,))
            return [StoredFile(*row) for row in rows]

    def get(self, file_id: str, owner: str = "") -> StoredFile:
        """Raises `NotFoundError`, also for another owner's file, and OSError."""
        with self._database.read() as connection:
            row = connection.execute(_GET, (owner, file_id)).fetchone()
        if row is None:
            raise NotFoundError(f"File not found: {file_id}")
        return StoredFile(*row)

    def content(self, file: StoredFile) -> Path:
        """Return the path of a file's bytes. Raises `FileExpiredError`."""
        if self.is_expired(file):
            raise FileExpiredError(file.id)
        return self._folder / file.id

    def read(self, file_id: str, owner: str = "") -> FileContent:
        """Raises `NotFoundError`, `FileExpiredError`, OSError."""
        file = self.get(file_id, owner)
        try:
            return FileContent(file.mime_type, self.content(file).read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"File not found: {file_id}") from None

    def delete(self, file_id: str, owner: str = "") -> None:
        """Raises `NotFoundError`, OSError."""
        file = self.get(file_id, owner)
        with self._database.free() as connection:
            connection.execute("DELETE FROM files WHERE id = ?", (file.id,))
            remove_owner(connection, file.id)
        (self._folder / file.id).unlink(missing_ok=True)

    def is_expired(self, file: StoredFile) -> bool:
        return file.expires_at is not None and file.expires_at <= self._clock()

    def _remove_expired(self, connection: Connection) -> None:
        """Remove metadata that expired long ago, and content that expired or has no metadata."""
        cutoff = self._clock() - EXPIRED_RETENTION_S
        connection.execute("DELETE FROM files WHERE expires_at < ?", (cutoff,))
        current = connection.execute(
            "SELECT id FROM files WHERE expires_at IS NULL OR expires_at > ?", (self._clock(),)
        )
        ids = {file_id for (file_id,) in current}
        for path in self._folder.glob(f"{_ID}_*"):
            if path.name not in ids:
                path.unlink(missing_ok=True)

    def _check_quota(self, connection: Connection, size: int) -> None:
        files, stored_bytes = connection.execute(
            "SELECT count(*), total(size_bytes) FROM files"
            " WHERE expires_at IS NULL OR expires_at > ?",
            (self._clock(),),
        ).fetchone()
        if stored_bytes + size > self.limits.stored_bytes or files >= self.limits.files:
            raise StorageQuotaExceededError(
                "The files on this server have reached its limit; delete some that are not needed"
            )


def sort_key(file: StoredFile) -> tuple[float, str]:
    """Return the sort key of listings."""
    return file.created_at, file.id
