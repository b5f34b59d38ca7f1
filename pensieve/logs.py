"""Logging of the server: one line per event on standard error; and the file behind it, kept small and read.

Whatever a client or a model can put into a message (CR, LF, escapes, NUL) is written escaped, so that it neither
forges a line nor talks to the terminal. Knows no HTTP.
"""

import fcntl
import logging
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO, cast

from pensieve.atomic_files import file_behind
from pensieve.log_rate_limit import LogRateLimit
from pensieve.untrusted_text import one_line

# 50 000 requests, at some 200 bytes each.
MAX_BYTES = 10 * 2**20
EARLIER = ".1"
LOOK_S = 0.2


def set_up(*, is_debug: bool, stream: TextIO | None = None) -> None:
    """pensieve's own lines from INFO (DEBUG where asked for), libraries' from WARNING. Calling it again replaces it.

    A regular file that the stream writes to is kept small, whoever opened it: we, launchd or a shell.
    """
    stream = stream or cast("TextIO", sys.stderr)
    log = file_behind(stream)
    handler = SizeCappedHandler(stream, log) if log else logging.StreamHandler(stream)
    handler.setFormatter(OneLine())
    handler.addFilter(LogRateLimit())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("pensieve").setLevel(logging.DEBUG if is_debug else logging.INFO)
    logging.captureWarnings(capture=True)


class SizeCappedHandler(logging.StreamHandler[TextIO]):
    """Writes to a file that others (the engine's worker, a crash) hold open to append to as well.

    At its largest it is copied and emptied, not renamed: whoever holds it open goes on in it. What another process
    writes between the two is lost.
    """

    def __init__(self, stream: TextIO, log: Path, largest_bytes: int = MAX_BYTES) -> None:
        super().__init__(stream)
        _append(stream.fileno())
        self._log = log
        self._largest_bytes = largest_bytes

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, and look whether it was one too many."""
        super().emit(record)
        # A full disk is no reason not to serve.
        with suppress(OSError):
            if os.fstat(self.stream.fileno()).st_size > self._largest_bytes:
                rotate(self._log)


def _append(descriptor: int) -> None:
    """Have every write go to the file's end. A shell's `2> file` would write on where it was, behind a hole, once it is emptied."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)


def rotate(log: Path) -> None:
    """Copy `log` beside itself, over what was there, readable by its owner alone; and empty it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with (
        log.open("rb+") as file,
        os.fdopen(os.open(earlier(log), flags, 0o600), "wb") as copy,
    ):
        shutil.copyfileobj(file, copy)
        copy.flush()
        file.truncate(0)


def last_lines(log: Path, count: int) -> Iterator[str]:
    """The last `count` lines of the log, and of what was before it where it has not as many."""
    found: deque[str] = deque(maxlen=count)
    for file in (earlier(log), log):
        with suppress(FileNotFoundError, NotADirectoryError), file.open("rb") as opened:
            found.extend(map(_text, opened))
    return iter(found)


def follow(log: Path, pause: Callable[[], object] = lambda: time.sleep(LOOK_S)) -> Iterator[str]:
    """Each line that is written from now on, also after the file was turned over, emptied or made anew. Never ends."""
    at, held = _size(log), b""
    copied_at = _changed_at(earlier(log))
    while True:
        if _size(log) < at:
            is_copied = _changed_at(earlier(log)) != copied_at
            # What came between the last look and the turn is in the copy.
            held = held + _from(earlier(log), at) if is_copied else b""
            at = 0
        came = _from(log, at)
        at += len(came)
        *whole, held = (held + came).split(b"\n")
        yield from map(_text, whole)
        copied_at = _changed_at(earlier(log))
        pause()


class OneLine(logging.Formatter):
    """`2026-01-31T10:20:30Z level message`, with its traceback if there is one, on one line."""

    converter = time.gmtime

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def _text(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode("utf-8", "replace")


def earlier(log: Path) -> Path:
    """Return the file that `log` is copied to when it has become too large."""
    return log.with_name(log.name + EARLIER)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _changed_at(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _from(file: Path, at: int) -> bytes:
    with suppress(FileNotFoundError), file.open("rb") as opened:
        opened.seek(at)
        return opened.read()
    return b""
