"""Logging of the server: one line per event on standard error, and the size-capped file it goes to.
A fault that repeats often is logged at a limited rate.

Control characters (CR, LF, escapes, NUL) that a client or a model put into a message are escaped,
so that they cannot forge a line or control the terminal. Knows no HTTP.
"""

import fcntl
import json
import logging
import os
import re
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TextIO, cast, runtime_checkable

from pensieve.atomic_files import file_of
from pensieve.untrusted_text import one_line

# About 50 000 requests of some 200 bytes each.
MAX_BYTES = 10 * 2**20
EARLIER = ".1"
POLL_S = 0.2

# The rate limit of one kind of warning: asyncio, for example, logs 2000 tracebacks at once while
# accept() fails (2026-11-30, CPython 3.11).
PERIOD_S = 10.0
# Per kind and period.
MAX_LINES = 5
MAX_KINDS = 256


# Our own lines above DEBUG, in both formats. Metal's error lines, for example, come from C++.
OWN_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (?:INFO|WARNING|ERROR|CRITICAL) "
    r'|\{"time": "[0-9T:.-]+Z", "level": "(?:INFO|WARNING|ERROR|CRITICAL)", '
)
TAIL_BYTES = 64 * 1024

# The id of the request that the present task or thread works for; each of its lines has it.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


@runtime_checkable
class Fields(Protocol):
    """A message with values of its own, for a log in JSON. As text it is `str` of it."""

    @property
    def fields(self) -> Mapping[str, object]: ...


def set_up(*, is_debug: bool, is_json: bool = False, stream: TextIO | None = None) -> None:
    """Log pensieve's records from INFO (or DEBUG) and libraries' from WARNING; replace earlier
    set-ups.

    If `stream` is a regular file, its size is capped, whether pensieve, launchd or a shell opened
    it.
    """
    stream = stream or cast("TextIO", sys.stderr)
    log = file_of(stream)
    handler = SizeCappedHandler(stream, log) if log else logging.StreamHandler(stream)
    handler.setFormatter(JSONLine() if is_json else OneLine())
    handler.addFilter(LogRateLimit())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("pensieve").setLevel(logging.DEBUG if is_debug else logging.INFO)
    logging.captureWarnings(capture=True)


class SizeCappedHandler(logging.StreamHandler[TextIO]):
    """Writes to a file that other processes (the engine worker, a crashing one) append to as well.

    A file over the limit is copied and truncated, not renamed, because other processes have it
    open. What they write between copy and truncation is lost.
    """

    def __init__(self, stream: TextIO, log: Path, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(stream)
        _append(stream.fileno())
        self._log = log
        self._max_bytes = max_bytes

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line and rotate the file if it exceeds the limit."""
        super().emit(record)
        # The server continues to work while the disk is full.
        with suppress(OSError):
            if os.fstat(self.stream.fileno()).st_size > self._max_bytes:
                rotate(self._log)


def _append(descriptor: int) -> None:
    """Make every write go to the end of the file.

    After a truncation, a shell's `2> file` would otherwise write at its old offset, leaving a hole.
    """
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)


def rotate(log: Path) -> None:
    """Copy `log` to `earlier(log)`, readable by its owner alone, and truncate it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with (
        log.open("rb+") as file,
        os.fdopen(os.open(earlier(log), flags, 0o600), "wb") as copy,
    ):
        shutil.copyfileobj(file, copy)
        copy.flush()
        file.truncate(0)


def last_lines(log: Path, count: int) -> Iterator[str]:
    """Return the last `count` lines of the log, continued from the rotated file if it is
    shorter.
    """
    lines: deque[str] = deque(maxlen=count)
    for file in (earlier(log), log):
        with suppress(FileNotFoundError, NotADirectoryError), file.open("rb") as opened:
            lines.extend(map(_text, opened))
    return iter(lines)


def own_tail(log: Path, count: int) -> list[str]:
    """Return the last `count` of our own lines above DEBUG, as far as the log's end has them."""
    start = max(0, _size(log) - TAIL_BYTES)
    lines = map(_text, _read_from(log, start).splitlines())
    return [one_line(line) for line in lines if OWN_LINE.match(line)][-count:]


def follow(log: Path, pause: Callable[[], object] = lambda: time.sleep(POLL_S)) -> Iterator[str]:
    """Yield each line written from now on, across rotation, truncation and replacement. Never
    ends.
    """
    offset, partial = _size(log), b""
    rotated_ns = _modified_ns(earlier(log))
    while True:
        if _size(log) < offset:
            is_rotated = _modified_ns(earlier(log)) != rotated_ns
            # The copy holds what was written between the last poll and the rotation.
            partial = partial + _read_from(earlier(log), offset) if is_rotated else b""
            offset = 0
        content = _read_from(log, offset)
        offset += len(content)
        *complete, partial = (partial + content).split(b"\n")
        yield from map(_text, complete)
        rotated_ns = _modified_ns(earlier(log))
        pause()


@contextmanager
def naming(request_id: str) -> Generator[None]:
    """Have lines of the block name this request."""
    token = REQUEST_ID.set(request_id)
    try:
        yield
    finally:
        REQUEST_ID.reset(token)


class OneLine(logging.Formatter):
    """Formats a record, with its traceback, as `2026-01-31T10:20:30Z level message` on one line.

    The request's id precedes the message of a line that belongs to one.
    """

    converter = time.gmtime

    def __init__(self) -> None:
        form = "%(asctime)s %(levelname)s %(request)s%(message)s"
        super().__init__(form, "%Y-%m-%dT%H:%M:%SZ")

    def format(self, record: logging.LogRecord) -> str:
        request_id = REQUEST_ID.get()
        record.request = f"{request_id} " if request_id else ""
        return one_line(super().format(record))


class JSONLine(logging.Formatter):
    """Formats a record as a JSON object on one line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        if isinstance(record.msg, Fields):
            line |= record.msg.fields
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _text(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode("utf-8", "replace")


def earlier(log: Path) -> Path:
    """Return the file that `log` is copied to on rotation."""
    return log.with_name(log.name + EARLIER)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _modified_ns(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _read_from(file: Path, offset: int) -> bytes:
    with suppress(FileNotFoundError), file.open("rb") as opened:
        opened.seek(offset)
        return opened.read()
    return b""


@dataclass(slots=True)
class _Period:
    began_at: float
    lines: int = 0
    suppressed: int = 0


class LogRateLimit(logging.Filter):
    """Passes at most `MAX_LINES` warnings and errors of one kind per period.

    The first one of a later period reports how many were suppressed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._periods: dict[tuple[object, ...], _Period] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        now = self._clock()
        period = self._period_of(record, now)
        if now - period.began_at >= PERIOD_S:
            if period.suppressed:
                record.msg = f"{record.getMessage()} ({period.suppressed} more like it before)"
                record.args = None
            period.began_at, period.lines, period.suppressed = now, 0, 0
        if period.lines < MAX_LINES:
            period.lines += 1
            return True
        period.suppressed += 1
        return False

    def _period_of(self, record: logging.LogRecord, now: float) -> _Period:
        """Group records by message template, logger, level and exception type."""
        cause = record.exc_info[0] if record.exc_info else None
        kind = (record.name, record.levelno, record.msg, cause)
        if kind not in self._periods and len(self._periods) == MAX_KINDS:
            self._periods.clear()
        return self._periods.setdefault(kind, _Period(now))
