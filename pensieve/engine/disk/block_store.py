"""Files of KV cache on disk: written by a background thread, limited in bytes, safe in crashes.

Used by the disk tier of the prefix cache; knows neither MLX nor what a block means. Each kind of
model has a folder, named `MODEL-FINGERPRINT`, and all share one cap. When it is reached, files of
the same model under another fingerprint are deleted first, since they are useless now; then the
least recently used of all.

A file is written under a temporary name and renamed. It is not synced: flushing the drive's cache
for each of several hundred files a day would stall other programs' writes, and a file torn by a
power cut fails its checksum, which makes it a miss. A full disk pauses writing and nothing else.

Threads: `enqueue` adds a write to a bounded queue; the writer thread takes it, generates its pieces
(so that it computes the checksum, not the engine) and writes them. Both change the index under a
lock.
"""

import contextlib
import errno
import logging
import os
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pensieve.atomic_files import TEMPORARY, write_atomically
from pensieve.engine.disk.write_quota import DailyWriteQuota
from pensieve.private_files import make_folder, read_private

_log = logging.getLogger("pensieve.engine")

GB = 10**9
QUEUE_BYTES = 512 * 2**20
PAUSE_S = 60.0
QUOTA_FILE = "written.json"
_FOLDER = re.compile(r"(?:(?P<model>.+)-)?[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """The limits of a store."""

    cap_bytes: int  # for all files
    daily_bytes: int  # written in 24 hours, so that the disk does not wear


def default_limits(free_bytes: int, platform: str = sys.platform) -> StoreLimits:
    """Return the limits for a disk with `free_bytes` that the store may share.

    A laptop's disk is smaller, and hourly APFS snapshots (Time Machine) keep deleted files for up
    to a day: a day of writing takes as much space there as the store itself.
    """
    if platform == "darwin":
        return StoreLimits(min(10 * GB, free_bytes // 20), 10 * GB)
    return StoreLimits(min(20 * GB, free_bytes // 10), 50 * GB)


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """The content of a file to be written."""

    nbytes: int  # approximate
    pieces: Callable[[], Iterable[bytes | memoryview]]  # may be called repeatedly


class BlockStore:
    """Owns the folder and the writer thread; made, used and closed by the engine's thread."""

    def __init__(
        self,
        folder: Path,
        limits: StoreLimits,
        quota: DailyWriteQuota,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folder` is for this model and fingerprint; its siblings are those of others."""
        self._folder = folder
        self.limits = limits
        self._quota = quota
        self._clock = clock
        self._lock = threading.Condition()
        self._sizes: OrderedDict[Path, int] = OrderedDict()
        self._nbytes = 0
        self._queue: OrderedDict[str, PendingWrite] = OrderedDict()
        self._queued_bytes = 0
        self._paused_until = 0.0
        self._is_closing = False
        make_folder(folder)
        self._index()
        self._evict_for(0)
        self._writer = threading.Thread(target=self._run_writer, name="block writer", daemon=True)
        self._writer.start()

    @property
    def nbytes(self) -> int:
        """Bytes of all files of all models."""
        return self._nbytes

    @property
    def written_today(self) -> int:
        with self._lock:
            return self._quota.last_day

    @property
    def is_writing(self) -> bool:
        """Whether new files are accepted: disk not full, quota not used up, cap not 0."""
        if self._clock() < self._paused_until or not self.limits.cap_bytes:
            return False
        return self.written_today < self.limits.daily_bytes

    @property
    def is_idle(self) -> bool:
        """Whether the write queue is empty."""
        return not self._queue

    def names(self) -> list[str]:
        """Return the names of this model's files, least recently used first, queued ones last."""
        with self._lock:
            return [
                *(file.name for file in self._sizes if file.parent == self._folder),
                *self._queue,
            ]

    def has(self, name: str) -> bool:
        """Whether the file exists or is queued."""
        with self._lock:
            return self._contains(name)

    def enqueue(self, name: str, write: PendingWrite) -> bool:
        """Queue a file for writing; False if it exists, the queue is full or writing is paused."""
        with self._lock:
            if self._contains(name) or write.nbytes > self.limits.cap_bytes:
                return False
            if self._queued_bytes + write.nbytes > QUEUE_BYTES or not self.is_writing:
                return False
            self._queue[name] = write
            self._queued_bytes += write.nbytes
            self._lock.notify_all()
            return True

    def head(self, name: str, nbytes: int) -> bytes | None:
        """Return a file's first bytes, None if it is missing. Does not mark it as used."""
        with self._lock:
            queued = self._queue.get(name)
        if queued is not None:
            return b"".join(queued.pieces())[:nbytes]
        try:
            return read_private(self._folder / name, nbytes)
        except OSError:
            return None

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return a file's content, also if it is only queued; None if missing.

        At most `max_bytes` of a file are returned. Does not mark it as used.
        """
        with self._lock:
            queued = self._queue.get(name)
        if queued is not None:
            return b"".join(queued.pieces())
        try:
            content = read_private(self._folder / name, max_bytes)
        except OSError:
            self.delete(name)
            return None
        return content

    def mark_used(self, name: str) -> None:
        """Have the cap evict the file later than all others."""
        file = self._folder / name
        with self._lock:
            if file in self._sizes:
                self._sizes.move_to_end(file)
        with contextlib.suppress(OSError):
            os.utime(file)

    def delete(self, name: str) -> None:
        """Delete a file and its queued write."""
        with self._lock:
            self._nbytes -= self._sizes.pop(self._folder / name, 0)
            if (write := self._queue.pop(name, None)) is not None:
                self._queued_bytes -= write.nbytes
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait up to `timeout_s` for the queue to be written, then end the thread."""
        with self._lock:
            self._is_closing = True
            self._lock.notify_all()
        self._writer.join(timeout_s)

    def _contains(self, name: str) -> bool:
        return self._folder / name in self._sizes or name in self._queue

    def _index(self) -> None:
        """Index existing files in eviction order; delete temporary files left by a crash."""
        found: list[tuple[bool, float, Path, int]] = []
        for path, is_current in self._files():
            if path.name.endswith(TEMPORARY):
                path.unlink(missing_ok=True)
            elif path.is_file() and not path.is_symlink():
                stat = path.stat()
                found.append((is_current, stat.st_mtime, path, stat.st_size))
        self._sizes = OrderedDict((path, size) for *_, path, size in sorted(found))
        self._nbytes = sum(self._sizes.values())

    def _files(self) -> Iterator[tuple[Path, bool]]:
        """Yield each file and whether it may be used again."""
        for folder in (self._folder, *self._folder.parent.iterdir()):
            kind = _FOLDER.fullmatch(folder.name)
            ours = _FOLDER.fullmatch(self._folder.name)
            is_other = folder != self._folder
            if is_other and (kind is None or folder.is_symlink() or not folder.is_dir()):
                continue
            is_stale = is_other and kind and ours and kind["model"] in {None, ours["model"]}
            yield from ((path, not is_stale) for path in folder.iterdir())

    def _run_writer(self) -> None:
        while (queued := self._next_queued()) is not None:
            name, write = queued
            try:
                self._evict_for(write.nbytes)
                written = write_atomically(self._folder / name, write.pieces(), is_durable=False)
            except OSError as error:
                self._pause(error)
                written = 0
            with self._lock:
                if self._queue.pop(name, None) is not None:
                    self._queued_bytes -= write.nbytes
                if written:
                    self._sizes[self._folder / name] = written
                    self._nbytes += written
                    self._quota.add(written)

    def _next_queued(self) -> tuple[str, PendingWrite] | None:
        """Return the oldest queued write, which stays queued until written; None when closing."""
        with self._lock:
            while not self._queue:
                if self._is_closing:
                    return None
                self._lock.wait()
            return next(iter(self._queue.items()))

    def _evict_for(self, nbytes: int) -> None:
        while True:
            with self._lock:
                if not self._sizes or self._nbytes + nbytes <= self.limits.cap_bytes:
                    return
                path, freed = self._sizes.popitem(last=False)
                self._nbytes -= freed
            path.unlink(missing_ok=True)
            if path.parent != self._folder:
                # The folder of another model is deleted with its last file.
                with contextlib.suppress(OSError):
                    path.parent.rmdir()

    def _pause(self, error: OSError) -> None:
        self._paused_until = self._clock() + PAUSE_S
        reason = "the disk is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else str(error)
        _log.warning("writing KV cache to disk failed, pausing for a minute: %s", reason)
