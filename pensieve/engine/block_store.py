"""Files of KV cache in one folder: written behind by a thread of their own, bounded in bytes, safe against any crash.

A file is written under a temporary name, synced, renamed, and only then exists. The least recently used go when the cap
is reached. A disk that is full pauses writing and stops nothing else. Knows neither MLX nor what a block means.

The one crossing between threads: `offer` puts a content in a bounded queue, the writer takes it out, asks for its pieces
(so a checksum is its work, not the engine's) and writes them. The index is changed under a lock by both.
"""

import contextlib
import errno
import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pensieve.files import TEMPORARY, write_atomically

_log = logging.getLogger("pensieve.engine")

QUEUE_BYTES = 512 * 2**20
PAUSE_S = 60.0
_DAY_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """cap_bytes: for all files. daily_bytes: written in 24 hours, so that a disk does not wear."""

    cap_bytes: int
    daily_bytes: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is to hold: pieces that can be asked for again and again, and about how many bytes they are."""

    nbytes: int
    pieces: Callable[[], Iterable[bytes | memoryview]]


@dataclass(slots=True)
class _Ledger:
    """Bytes written lately."""

    written: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    def add(self, now_s: float, nbytes: int) -> None:
        self.written.append((now_s, nbytes))

    def last_day(self, now_s: float) -> int:
        while self.written and now_s - self.written[0][0] > _DAY_S:
            self.written.popleft()
        return sum(nbytes for _, nbytes in self.written)


class BlockStore:
    """Owns the folder and the writer thread; made, used and closed by the engine's thread."""

    def __init__(
        self, folder: Path, limits: StoreLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._clock = clock
        self._lock = threading.Condition()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._queue: OrderedDict[str, Content] = OrderedDict()
        self._queued_bytes = 0
        self._ledger = _Ledger()
        self._paused_until = 0.0
        self._is_closing = False
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._index()
        self._writer = threading.Thread(target=self._write_behind, name="block writer", daemon=True)
        self._writer.start()

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        with self._lock:
            return sum(self._sizes.values())

    @property
    def is_writing(self) -> bool:
        """Whether new files are taken: not while the disk is full, nor after the day's budget."""
        now_s = self._clock()
        return (
            now_s >= self._paused_until and self._ledger.last_day(now_s) < self._limits.daily_bytes
        )

    def names(self) -> list[str]:
        """All files, the least recently used first; those on their way included."""
        with self._lock:
            return [*self._sizes, *self._queue]

    def has(self, name: str) -> bool:
        """Whether the file is there or on its way."""
        with self._lock:
            return name in self._sizes or name in self._queue

    def offer(self, name: str, content: Content) -> bool:
        """Have a file written soon; False where there is no room to wait, no need, or no writing now."""
        with self._lock:
            if name in self._sizes or name in self._queue:
                return False
            if self._queued_bytes + content.nbytes > QUEUE_BYTES or not self.is_writing:
                return False
            self._queue[name] = content
            self._queued_bytes += content.nbytes
            self._lock.notify_all()
            return True

    def read(self, name: str, at_most: int = -1) -> bytes | None:
        """A file's content or its first bytes, also of one not yet written; None where it is gone."""
        with self._lock:
            queued = self._queue.get(name)
        if queued is not None:
            return b"".join(queued.pieces())
        try:
            with (self._folder / name).open("rb") as file:
                content = file.read(at_most)
        except OSError:
            self.forget(name)
            return None
        with self._lock:
            if name in self._sizes:
                self._sizes.move_to_end(name)
        with contextlib.suppress(OSError):
            os.utime(self._folder / name)
        return content

    def forget(self, name: str) -> None:
        """Remove a file: it is damaged, or another one holds all that it does."""
        with self._lock:
            self._sizes.pop(name, None)
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

    def _index(self) -> None:
        """What is there, oldest first; what a crash left half written goes."""
        found: list[tuple[float, str, int]] = []
        for path in self._folder.iterdir():
            if path.name.endswith(TEMPORARY):
                path.unlink(missing_ok=True)
            elif path.is_file():
                stat = path.stat()
                found.append((stat.st_mtime, path.name, stat.st_size))
        self._sizes = OrderedDict((name, size) for _, name, size in sorted(found))

    def _write_behind(self) -> None:
        while (queued := self._next_queued()) is not None:
            name, content = queued
            try:
                self._make_room(content.nbytes)
                written = write_atomically(self._folder / name, content.pieces())
            except OSError as error:
                self._pause(error)
                written = 0
            with self._lock:
                if self._queue.pop(name, None) is not None:
                    self._queued_bytes -= content.nbytes
                if written:
                    self._sizes[name] = written
                    self._ledger.add(self._clock(), written)

    def _next_queued(self) -> tuple[str, Content] | None:
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
                if not self._sizes or sum(self._sizes.values()) + nbytes <= self._limits.cap_bytes:
                    return
                name, _ = self._sizes.popitem(last=False)
            (self._folder / name).unlink(missing_ok=True)

    def _pause(self, error: OSError) -> None:
        self._paused_until = self._clock() + PAUSE_S
        why = "the disk is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else str(error)
        _log.warning("prefixes are not written to disk for a minute: %s", why)
