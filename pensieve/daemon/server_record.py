"""The running server's record, `server.json`: written by the server, read by the commands."""

import json
import os
import shlex
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pensieve.atomic_files import file_of, write_atomically
from pensieve.credentials.certificate import ServerCertificate
from pensieve.credentials.trust import Trust
from pensieve.daemon import server_lock
from pensieve.daemon.processes import is_running, start_of
from pensieve.errors import NotWritableError, RecordUnreadableError
from pensieve.installation import Keg
from pensieve.paths import Paths
from pensieve.private_files import read_private
from pensieve.settings.resolve import Flags
from pensieve.untrusted_json import read_object

# fetching: the server downloads its model and does not listen yet.
Phase = Literal["fetching", "serving"]

MAX_BYTES = 65536
# A starting server holds its lock for a moment before it writes its record.
TIMEOUT_S = 2.0
POLL_S = 0.05

# A server on "every address" is reached from here through loopback.
FROM_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- read, never bound


@dataclass(frozen=True, slots=True)
class ServerRecord:
    pid: int
    process_start: str
    host: str
    port: int
    model: str
    device: str
    started_at: float  # Unix seconds
    log: str  # the file that it writes to; empty for a terminal or pipe
    phase: Phase = "serving"
    certificate: str = ""  # PEM; the server speaks TLS
    name: str = ""  # of the certificate, for clients that verify it
    service: str = ""  # launchd's name if it is Homebrew's service
    # Command-line options of its start, which a restart repeats.
    flags: Mapping[str, str | float] = field(default_factory=dict[str, str | float], hash=False)

    @property
    def base_url(self) -> str:
        """The address for clients on this machine, without a trailing slash and without /v1."""
        return self._url(self.name or FROM_HERE.get(self.host, self.host))

    @property
    def direct_url(self) -> str:
        """The same without a name that has to be resolved: for commands, which know the
        certificate (`trust`).
        """
        return self._url(FROM_HERE.get(self.host, self.host))

    @property
    def trust(self) -> Trust:
        return Trust(certificate=self.certificate)

    def _url(self, host: str) -> str:
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address and what it serves: the part of a record that the caller knows."""

    host: str
    port: int
    model: str
    device: str


def own_record(
    address: Address,
    *,
    service: str = "",
    flags: Mapping[str, str | float] | None = None,
    certificate: ServerCertificate | None = None,
) -> ServerRecord:
    """Return the record of this process as the server at `address`."""
    host = FROM_HERE.get(address.host, address.host)
    return ServerRecord(
        certificate=certificate.pem if certificate else "",
        name=certificate.name_for(host) if certificate else "",
        pid=os.getpid(),
        process_start=start_of(os.getpid()) or "",
        started_at=time.time(),
        log=str(file_of(sys.__stderr__) or ""),
        service=service,
        flags=flags or {},
        **asdict(address),
    )


@contextmanager
def publish(paths: Paths, record: ServerRecord) -> Generator[ServerRecord]:
    """Keep the record on disk while in the block, over an earlier one. The caller holds the
    lock.
    """
    _write(record, paths)
    try:
        yield record
    finally:
        paths.server_file.unlink(missing_ok=True)


def current(paths: Paths) -> ServerRecord | None:
    """Return the running server's record; None if none runs or it has not written one yet."""
    if not server_lock.is_held(paths):
        return None
    record = _read(paths)
    return record if record and is_running(record.pid, record.process_start) else None


def require(paths: Paths, timeout_s: float = TIMEOUT_S) -> ServerRecord | None:
    """Return the running server's record, which a starting server writes soon; None if none runs.

    Raises `RecordUnreadableError` if there is still none after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while (record := current(paths)) is None and server_lock.is_held(paths):
        if time.monotonic() > deadline:
            raise _unreadable(paths)
        time.sleep(POLL_S)
    return record


def lost_record(paths: Paths) -> RecordUnreadableError | None:
    """Return the error for a running server whose record is missing or damaged, without waiting.

    None if no server runs, if its record is readable, or if it can still be about to write it.
    """
    # Read in this order: a record that is written meanwhile is found by `current`.
    is_due = paths.server_file.exists() or server_lock.age_s(paths) > TIMEOUT_S
    if not is_due or current(paths) or not server_lock.is_held(paths):
        return None
    return _unreadable(paths)


def _unreadable(paths: Paths) -> RecordUnreadableError:
    server = server_lock.holder(paths)
    return RecordUnreadableError(
        str(paths.server_file),
        server.pid if server else None,
        is_missing=not paths.server_file.exists(),
    )


def restart_command(record: ServerRecord | None, flags: Flags | None = None) -> str:
    """Return the commands that restart the server, with these flags instead of its own.

    launchd manages Homebrew's service: it has no flags, only settings.
    """
    changed = flags or Flags()
    if record is None or not record.service:
        return shlex.join(["pensieve", "restart", *changed.as_arguments()])
    settings = [
        shlex.join(["pensieve", "config", "set", name, str(value)])
        for name, value in changed.given().items()
    ]
    return "\n  ".join([*settings, "brew services restart pensieve"])


def logs_of(paths: Paths, record: ServerRecord | None, keg: Keg | None) -> list[Path]:
    """Return the log files of this home's servers, the last written one last.

    If a server runs and writes to a file, only that one; otherwise the background server's and the
    Homebrew service's.
    """
    if record and record.log:
        return [Path(record.log)]
    candidates = [paths.server_log, *([keg.log] if keg else [])]
    return sorted(filter(Path.exists, candidates), key=lambda log: log.stat().st_mtime)


def _write(record: ServerRecord, paths: Paths) -> None:
    text = json.dumps(asdict(record), indent=2) + "\n"
    try:
        write_atomically(paths.server_file, text.encode())
    except OSError as error:
        raise NotWritableError(
            f"The file {paths.server_file} cannot be written: {error.strerror}.",
            hint="Free disk space there, or move pensieve's files elsewhere:\n"
            "  export PENSIEVE_HOME=~/pensieve",
        ) from error


def _read(paths: Paths) -> ServerRecord | None:
    """Ignore unknown fields: another version's server may write more, or fewer that have
    defaults.
    """
    names = {each.name for each in fields(ServerRecord)}
    with suppress(OSError, ValueError, TypeError, AttributeError):
        stored: Any = read_object(read_private(paths.server_file, MAX_BYTES))
        return ServerRecord(**{name: value for name, value in stored.items() if name in names})
    return None
