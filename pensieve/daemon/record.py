"""What the running server says of itself in `server.json`, for the commands that look for it."""

import json
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from pensieve.daemon import lock
from pensieve.daemon.processes import start_of
from pensieve.errors import NotWritableError
from pensieve.files import write_atomically
from pensieve.paths import Paths

# A server on "every address" is reached from here through loopback.
FROM_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- read, never bound


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The server of one home. `started_at`: Unix seconds. `log`: the file it writes to, empty in the foreground."""

    pid: int
    process_start: str
    host: str
    port: int
    model: str
    device: str
    started_at: float
    log: str

    @property
    def base_url(self) -> str:
        """Where clients on this machine reach it, without a trailing slash and without /v1."""
        host = FROM_HERE.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens and what it serves: the part of a record that its maker knows."""

    host: str
    port: int
    model: str
    device: str


@contextmanager
def published(paths: Paths, address: Address) -> Generator[ServerRecord]:
    """This process's record, on disk while in the block. The caller holds the lock."""
    record = ServerRecord(
        pid=os.getpid(),
        process_start=start_of(os.getpid()) or "",
        started_at=time.time(),
        log=_own_log(paths),
        **asdict(address),
    )
    _write(record, paths)
    try:
        yield record
    finally:
        paths.server_file.unlink(missing_ok=True)


def current(paths: Paths) -> ServerRecord | None:
    """The living server's record; None where none lives, or it has not written one yet."""
    if not lock.is_held(paths):
        return None
    record = _read(paths)
    return record if record and start_of(record.pid) == record.process_start else None


def _write(record: ServerRecord, paths: Paths) -> None:
    text = json.dumps(asdict(record), indent=2) + "\n"
    try:
        write_atomically(paths.server_file, text.encode())
    except OSError as error:
        raise NotWritableError(
            f"The file {paths.server_file} cannot be written: {error.strerror}.",
            hint="Make room there, or keep pensieve's files elsewhere: export PENSIEVE_HOME=~/pensieve",
        ) from error


def _read(paths: Paths) -> ServerRecord | None:
    with suppress(OSError, ValueError, TypeError):
        return ServerRecord(**json.loads(paths.server_file.read_text(encoding="utf-8")))
    return None


def _own_log(paths: Paths) -> str:
    """The log file, if this process's standard error is that file."""
    with suppress(OSError, ValueError):
        if os.path.samestat(os.fstat(sys.__stderr__.fileno()), paths.server_log.stat()):  # pyright: ignore[reportOptionalMemberAccess]
            return str(paths.server_log)
    return ""
