"""Files of KV cache on disk: written behind by a thread of their own, bounded in bytes, safe against any crash.

Every kind of model has a folder, named `MODEL-FINGERPRINT`, and they share one cap. When it is reached, what is of our
model under another fingerprint goes first, since it is of no use any more; then the least recently used of all.
A file is written under a temporary name and renamed. It is not synced: emptying the drive's cache for each of several hundred
files a day would stall other programs' writes, and a file that a power cut left torn fails its checksum, which makes it a miss.
A disk that is full pauses writing and stops nothing else. Knows neither MLX nor what a block means.

The one crossing between threads: `offer` puts a content in a bounded queue, the writer takes it out, asks for its pieces
(so a checksum is its work, not the engine's) and writes them. The index is changed under a lock by both.
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
LEDGER_FILE = "written.json"
_FOLDER = re.compile(r"(?:(?P<model>.+)-)?[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """cap_bytes: for all files. daily_bytes: written in 24 hours, so that a disk does not wear."""

    cap_bytes: int
    daily_bytes: int


def default_limits(free_bytes: int, platform: str = sys.platform) -> StoreLimits:
    """Return the limits of a disk with `free_bytes` that the store may share.

    A laptop's disk is smaller, and APFS snapshots (Time Machine makes one an hour) hold what was deleted for up to a day: a day
    of writing there takes as much room as the store itself.
    """
    if platform == "darwin":
        return StoreLimits(min(10 * GB, free_bytes // 20), 10 * GB)
    return StoreLimits(min(20 * GB, free_bytes // 10), 50 * GB)


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """What a file is to hold: pieces that can be asked for again and again, and about how many bytes they are."""

    nbytes: int
    pieces: Callable[[], Iterable[bytes | memoryview]]


class BlockStore:
    """Owns the folder and the writer thread; made, used and closed by the engine's thread. limits: as they were given."""

    def __init__(
        self,
        folder: Path,
        limits: StoreLimits,
        ledger: DailyWriteQuota,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """folder: of our model and fingerprint; beside it are those of others."""
        self._folder = folder
        self.limits = limits
        self._ledger = ledger
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
        self._make_room(0)
        self._writer = threading.Thread(target=self._write_behind, name="block writer", daemon=True)
        self._writer.start()

    @property
    def nbytes(self) -> int:
        """Bytes of all files, of all models."""
        return self._nbytes

    @property
    def written_today(self) -> int:
        """Bytes written in the last 24 hours."""
        with self._lock:
            return self._ledger.last_day

    @property
    def is_writing(self) -> bool:
        """Whether new files are taken: not while the disk is full, nor after the day's budget, nor where none may be."""
        if self._clock() < self._paused_until or not self.limits.cap_bytes:
            return False
        return self.written_today < self.limits.daily_bytes

    @property
    def is_idle(self) -> bool:
        """Nothing waits to be written."""
        return not self._queue

    def names(self) -> list[str]:
        """All of our files, the least recently used first; those on their way included."""
        with self._lock:
            return [
                *(file.name for file in self._sizes if file.parent == self._folder),
                *self._queue,
            ]

    def has(self, name: str) -> bool:
        """Whether the file is there or on its way."""
        with self._lock:
            return self._holds(name)

    def enqueue(self, name: str, content: PendingWrite) -> bool:
        """Have a file written soon; False where there is no room to wait, no need, or no writing now."""
        with self._lock:
            if self._holds(name) or content.nbytes > self.limits.cap_bytes:
                return False
            if self._queued_bytes + content.nbytes > QUEUE_BYTES or not self.is_writing:
                return False
            self._queue[name] = content
            self._queued_bytes += content.nbytes
            self._lock.notify_all()
            return True

    def head(self, name: str, nbytes: int) -> bytes | None:
        """A file's first bytes; None where it is gone. To look is not to use."""
        with self._lock:
            queued = self._queue.get(name)
        if queued is not None:
            return b"".join(queued.pieces())[:nbytes]
        try:
            return read_private(self._folder / name, nbytes)
        except OSError:
            return None

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """A file's content, also of one not yet written; None where it is gone. Marks it used.

        max_bytes: of a longer file, no more than its beginning is returned.
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
        self._mark_used(name)
        return content

    def _mark_used(self, name: str) -> None:
        file = self._folder / name
        with self._lock:
            if file in self._sizes:
                self._sizes.move_to_end(file)
        with contextlib.suppress(OSError):
            os.utime(file)

    def delete(self, name: str) -> None:
        """Remove a file: it is damaged, or another one holds all that it does."""
        with self._lock:
            self._nbytes -= self._sizes.pop(self._folder / name, 0)
            if (content := self._queue.pop(name, None)) is not None:
                self._queued_bytes -= content.nbytes
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def close(self, patience_s: float = 5.0) -> None:
        """Write what is queued, within reason, and end the thread."""
        with self._lock:
            self._is_closing = True
            self._lock.notify_all()
        self._writer.join(patience_s)

    def _holds(self, name: str) -> bool:
        return self._folder / name in self._sizes or name in self._queue

    def _index(self) -> None:
        """What is there, in the order in which it goes; what a crash left half written goes at once."""
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
        """Each file, and whether it may be of use again."""
        for folder in (self._folder, *self._folder.parent.iterdir()):
            kind = _FOLDER.fullmatch(folder.name)
            ours = _FOLDER.fullmatch(self._folder.name)
            is_other = folder != self._folder
            if is_other and (kind is None or folder.is_symlink() or not folder.is_dir()):
                continue
            is_stale = is_other and kind and ours and kind["model"] in {None, ours["model"]}
            yield from ((path, not is_stale) for path in folder.iterdir())

    def _write_behind(self) -> None:
        while (queued := self._next_queued()) is not None:
            name, content = queued
            try:
                self._make_room(content.nbytes)
                written = write_atomically(self._folder / name, content.pieces(), is_durable=False)
            except OSError as error:
                self._pause(error)
                written = 0
            with self._lock:
                if self._queue.pop(name, None) is not None:
                    self._queued_bytes -= content.nbytes
                if written:
                    self._sizes[self._folder / name] = written
                    self._nbytes += written
                    self._ledger.add(written)

    def _next_queued(self) -> tuple[str, PendingWrite] | None:
        """The oldest in the queue, which keeps it until it is written; None at the end."""
        with self._lock:
            while not self._queue:
                if self._is_closing:
                    return None
                self._lock.wait()
            return next(iter(self._queue.items()))

    def _make_room(self, nbytes: int) -> None:
        while True:
            with self._lock:
                if not self._sizes or self._nbytes + nbytes <= self.limits.cap_bytes:
                    return
                path, freed = self._sizes.popitem(last=False)
                self._nbytes -= freed
            path.unlink(missing_ok=True)
            if path.parent != self._folder:
                # An empty folder of a model that is gone goes with its last file.
                with contextlib.suppress(OSError):
                    path.parent.rmdir()

    def _pause(self, error: OSError) -> None:
        self._paused_until = self._clock() + PAUSE_S
        why = "the disk is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else str(error)
        _log.warning("prefixes are not written to disk for a minute: %s", why)
