"""Stores uploaded files on disk: `<id>` with the content, `<id>.json` with the metadata.

A file exists when both do. The content is written first and removed last, so a crash leaves at most
content without metadata, which the next upload removes. The metadata of an expired file stays for a
while, so that clients get an error that says so. All calls block, so callers make them in worker
threads; they may run concurrently.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pensieve.api.base import new_id
from pensieve.atomic_files import TEMPORARY, sync_path, write_atomically
from pensieve.errors import FileExpiredError, NotFoundError, StorageQuotaExceededError
from pensieve.private_files import make_folder, read_private
from pensieve.untrusted_json import read_record

_log = logging.getLogger("pensieve.server")

# How long the metadata of an expired file stays.
EXPIRED_RETENTION_S = 30 * 24 * 3600.0

_ID = re.compile(r"file_[0-9A-Za-z]{1,64}")
_RECORD = ".json"


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


class FileStore:
    """Owns the folder, which is created with the first file."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: StorageLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self.limits = limits or StorageLimits()
        self._clock = clock
        self._writing = threading.Lock()

    def add(
        self, content: bytes, filename: str, mime_type: str, lifetime_s: int | None = None
    ) -> StoredFile:
        """Raises `StorageQuotaExceededError`, OSError."""
        with self._writing:
            self._sweep_and_check_quota(len(content))
            now = self._clock()
            file = StoredFile(
                id=new_id("file"),
                filename=filename,
                mime_type=mime_type,
                size_bytes=len(content),
                created_at=now,
                expires_at=None if lifetime_s is None else now + lifetime_s,
            )
            make_folder(self._folder)
            write_atomically(self._folder / file.id, content)
            write_atomically(self._record(file.id), json.dumps(asdict(file)).encode())
        return file

    def list_files(self) -> Sequence[StoredFile]:
        """Return every file, newest first."""
        if not self._folder.exists():
            return []
        records = [self._read(path.stem) for path in self._folder.glob(f"*{_RECORD}")]
        return sorted((file for file in records if file), key=sort_key, reverse=True)

    def get(self, file_id: str) -> StoredFile:
        """Raises `NotFoundError`."""
        file = self._read(file_id)
        if file is None:
            raise NotFoundError(f"File not found: {file_id}")
        return file

    def content(self, file: StoredFile) -> Path:
        """Return the path of a file's bytes. Raises `FileExpiredError`."""
        if self.is_expired(file):
            raise FileExpiredError(file.id)
        return self._folder / file.id

    def text(self, file_id: str) -> str:
        """Return the content as text. Raises `NotFoundError`, `FileExpiredError`."""
        try:
            return self.content(self.get(file_id)).read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise NotFoundError(f"File not found: {file_id}") from None

    def delete(self, file_id: str) -> None:
        """Raises `NotFoundError`, OSError."""
        with self._writing:
            self._remove(self.get(file_id).id)
            sync_path(self._folder)

    def is_expired(self, file: StoredFile) -> bool:
        return file.expires_at is not None and file.expires_at <= self._clock()

    def _sweep_and_check_quota(self, size: int) -> None:
        remaining = self._sweep()
        stored_bytes = sum(file.size_bytes for file in remaining)
        if stored_bytes + size > self.limits.stored_bytes or len(remaining) >= self.limits.files:
            raise StorageQuotaExceededError(
                "The files on this server have reached its limit; delete some that are not needed"
            )

    def _sweep(self) -> list[StoredFile]:
        """Remove expired, orphaned and partial files. Return the others."""
        files = {file.id: file for file in self.list_files()}
        cutoff = self._clock() - EXPIRED_RETENTION_S
        for file in files.values():
            if self.is_expired(file):
                (self._folder / file.id).unlink(missing_ok=True)
                if file.expires_at is not None and file.expires_at < cutoff:
                    self._remove(file.id)
        for path in self._folder.glob("*"):
            if path.name.endswith(TEMPORARY) or self._is_orphaned(path.name):
                path.unlink(missing_ok=True)
        return [file for file in files.values() if not self.is_expired(file)]

    def _is_orphaned(self, name: str) -> bool:
        """Whether a file has no record.

        A record of another version that cannot be read counts as one.
        """
        return _is_id(name) and not self._record(name).exists()

    def _remove(self, file_id: str) -> None:
        self._record(file_id).unlink(missing_ok=True)
        (self._folder / file_id).unlink(missing_ok=True)

    def _record(self, file_id: str) -> Path:
        return self._folder / f"{file_id}{_RECORD}"

    def _read(self, file_id: str) -> StoredFile | None:
        # Only valid ids become paths.
        if not _is_id(file_id):
            return None
        try:
            file = read_record(StoredFile, read_private(self._record(file_id)))
        except FileNotFoundError:
            return None
        except ValueError as error:
            _log.warning("failed to read the metadata of %s, ignoring the file: %s", file_id, error)
            return None
        return file if file.id == file_id else None


def sort_key(file: StoredFile) -> tuple[float, str]:
    """Return the sort key of listings."""
    return file.created_at, file.id


def _is_id(name: str) -> bool:
    return _ID.fullmatch(name) is not None
