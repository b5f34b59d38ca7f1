"""What the running server says of itself in `server.json`, for the commands that look for it."""

import json
import os
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pensieve.atomic_files import file_behind, write_atomically
from pensieve.daemon import server_lock
from pensieve.daemon.processes import is_running, start_of
from pensieve.errors import NotWritableError
from pensieve.homebrew import Keg
from pensieve.paths import Paths
from pensieve.private_files import read_private
from pensieve.untrusted_json import read_object

# fetching: the server is on its way and gets its model; nobody listens yet.
Phase = Literal["fetching", "serving"]

MAX_BYTES = 65536

# A server on "every address" is reached from here through loopback.
FROM_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- read, never bound


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The server of one home. `started_at`: Unix seconds.

    `log`: the file that it writes to, empty where that is none. `service`: launchd's name for it, where Homebrew keeps it.
    `flags`: what it was started with on the command line, which a restart keeps.
    """

    pid: int
    process_start: str
    host: str
    port: int
    model: str
    device: str
    started_at: float
    log: str
    phase: Phase = "serving"
    service: str = ""
    flags: Mapping[str, str | float] = field(default_factory=dict[str, str | float], hash=False)

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


def own_record(
    address: Address, *, service: str = "", flags: Mapping[str, str | float] | None = None
) -> ServerRecord:
    """What this process says of itself once it is the server at `address`."""
    return ServerRecord(
        pid=os.getpid(),
        process_start=start_of(os.getpid()) or "",
        started_at=time.time(),
        log=str(file_behind(sys.__stderr__) or ""),
        service=service,
        flags=flags or {},
        **asdict(address),
    )


@contextmanager
def publish(paths: Paths, record: ServerRecord) -> Generator[ServerRecord]:
    """The record is on disk while in the block, over an earlier one. The caller holds the lock."""
    _write(record, paths)
    try:
        yield record
    finally:
        paths.server_file.unlink(missing_ok=True)


def current(paths: Paths) -> ServerRecord | None:
    """The living server's record; None where none lives, or it has not written one yet."""
    if not server_lock.is_held(paths):
        return None
    record = _read(paths)
    return record if record and is_running(record.pid, record.process_start) else None


def logs_of(paths: Paths, record: ServerRecord | None, keg: Keg | None) -> list[Path]:
    """Return the files that servers of this home have written to, the last written last.

    Of a server that runs and writes to a file: that one. Otherwise a background server's and the Homebrew service's.
    """
    if record and record.log:
        return [Path(record.log)]
    places = [paths.server_log, *([keg.log] if keg else [])]
    return sorted(filter(Path.exists, places), key=lambda log: log.stat().st_mtime)


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
    """A server of another version may have written more, or less where there is a default."""
    names = {each.name for each in fields(ServerRecord)}
    with suppress(OSError, ValueError, TypeError, AttributeError):
        stored: Any = read_object(read_private(paths.server_file, MAX_BYTES))
        return ServerRecord(**{name: value for name, value in stored.items() if name in names})
    return None
