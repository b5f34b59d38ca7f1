"""Bind the server's listening socket, or find the process that owns its port.

A port counts as taken if anything answers on it at either loopback address: a client that connects
to `localhost` may reach ::1, and macOS allows binding 127.0.0.1 under another program's wildcard.
"""

import errno
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pensieve.daemon.processes import command_of
from pensieve.errors import MachineError, PortInUseError, SettingsError
from pensieve.settings.resolve import is_loopback

_log = logging.getLogger("pensieve.server")

BACKLOG = 2048
CONNECT_TIMEOUT_S = 0.5
TIMEOUT_S = 1.0
RETRY_S = 0.05
LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
OTHER_LOOPBACK = {
    "127.0.0.1": (socket.AF_INET6, "::1"),
    "::1": (socket.AF_INET, "127.0.0.1"),
}
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- compared, never bound


@dataclass(frozen=True, slots=True)
class PortOwner:
    pid: int
    command: tuple[str, ...]  # empty if unreadable, as another user's can be

    @property
    def is_pensieve(self) -> bool:
        """Whether it is a pensieve server, then of another home or user."""
        names = [Path(argument).name for argument in self.command]
        return ("pensieve", "start") in pairwise(names)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises `PortInUseError` that names the owner of the port, `SettingsError` if `host` is no
    address of this machine or the port is reserved.
    """
    family, address = _resolve(host, port)
    if _is_taken(host, port):
        raise _in_use(port)
    return _bound(family, address, host, port)


def check_host(host: str) -> None:
    """Raise `SettingsError` if `host` is no address of this machine."""
    family, address = _resolve(host, 0)
    _bound(family, address, host, 0).close()


def _bound(
    family: socket.AddressFamily, address: tuple[Any, ...], host: str, port: int
) -> socket.socket:
    try:
        return _listening(family, address)
    except OSError as error:
        raise _refusal(error, host, port) from error


def _listening(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    """Raises OSError."""
    with ExitStack() as on_failure:
        listener = on_failure.enter_context(socket.socket(family, socket.SOCK_STREAM))
        # Otherwise a restart has to wait until the last server's connections time out.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        on_failure.pop_all()
    return listener


@contextmanager
def both_loopbacks(listener: socket.socket) -> Generator[list[socket.socket]]:
    """Yield `listener` and, if it is at one loopback address, a second socket at the other one.

    A client that connects to `localhost` may try ::1 alone. Without IPv6, or if the port was taken
    there since `bind` looked, only `listener` is yielded.
    """
    host, port = listener.getsockname()[:2]
    with ExitStack() as open_sockets:
        listeners = [listener]
        if host in OTHER_LOOPBACK:
            family, other = OTHER_LOOPBACK[host]
            try:
                listeners.append(open_sockets.enter_context(_listening(family, (other, port))))
            except OSError as error:
                _log.warning(
                    "not listening at %s port %d (%s), clients that connect to localhost must try"
                    " %s, too",
                    other,
                    port,
                    error.strerror,
                    host,
                )
        yield listeners


def bind_with_retry(host: str, port: int) -> socket.socket:
    """Bind like `bind` for the server itself: another start that tests the port holds it for an
    instant.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return bind(host, port)
        except PortInUseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)


def find_owner(port: int, platform: str = sys.platform) -> PortOwner | None:
    """Return the process that listens on `port`; None if the system hides it from this user."""
    if platform == "linux":
        return _owner_in_proc(port)
    pid = lsof_pid(port)
    return PortOwner(pid, tuple(command_of(pid, platform))) if pid else None


def lsof_pid(port: int) -> int | None:
    """Ask lsof(8), which macOS has, for the listener's process id; its -F output is for
    programs.
    """
    command = ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp"]
    with suppress(OSError, subprocess.SubprocessError):
        result = subprocess.run(  # noqa: S603 -- a port number and fixed flags
            command, capture_output=True, text=True, timeout=10, check=False
        )
        return read_listener(result.stdout)
    return None


def read_listener(output: str) -> int | None:
    """Parse `lsof -Fp`: a line `p<pid>` per process, then a line `f<descriptor>` per file."""
    pids = (line[1:] for line in output.splitlines() if line.startswith("p"))
    return next((int(pid) for pid in pids if pid.isdecimal()), None)


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    try:
        candidates = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise _no_such_address(host) from error
    family, _, _, _, address = min(candidates, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _is_taken(host: str, port: int) -> bool:
    is_local = is_loopback(host) or host in WILDCARDS
    hosts = ("127.0.0.1", "::1") if is_local else (host,)
    return any(_answers(each, port) for each in hosts)


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), CONNECT_TIMEOUT_S) as connection:
            # Without a listener, a port of the ephemeral range can connect to itself.
            return connection.getsockname() != connection.getpeername()
    except TimeoutError:
        return True
    except OSError:
        return False


def _refusal(error: OSError, host: str, port: int) -> MachineError | SettingsError:
    match error.errno:
        case errno.EADDRINUSE:
            return _in_use(port)
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return _no_such_address(host)
        case errno.EACCES | errno.EPERM:
            return SettingsError(
                f"Port {port} is reserved for the system.",
                hint="Choose one from 1024 to 65535:\n  pensieve start --port 7777",
            )
        case _:
            return MachineError(f"Cannot listen on {host} port {port}: {error.strerror}.")


def _no_such_address(host: str) -> SettingsError:
    return SettingsError(
        f"--host {host} is not an address of this machine.",
        hint="Omit --host to serve this machine only (127.0.0.1).",
    )


def _in_use(port: int) -> PortInUseError:
    owner = find_owner(port)
    other = port + 1 if port < 65535 else port - 1
    return PortInUseError(
        f"Port {port} is in use by {_name(owner)}",
        hint=f"Choose another port, or stop that program:\n  pensieve start --port {other}",
    )


def _name(owner: PortOwner | None) -> str:
    if owner is None:
        return "a program that this user cannot see."
    if owner.is_pensieve:
        return f"another pensieve, of another PENSIEVE_HOME or user (pid {owner.pid})."
    command = " ".join(owner.command) or "(command not readable)"
    return f"pid {owner.pid}:\n  {command if len(command) <= 76 else command[:73] + '...'}"


def _owner_in_proc(port: int) -> PortOwner | None:
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        if sockets & set(_links(process / "fd")):
            pid = int(process.name)
            return PortOwner(pid, tuple(command_of(pid)))
    return None


def _listening_inodes(port: int) -> Iterator[str]:
    """Read proc_net_tcp(5): column 1 is the local address (hex, `:` port), 3 the state, 9 the
    inode.
    """
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                columns = line.split()
                if columns[3] == LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                    yield columns[9]


def _links(folder: Path) -> Iterator[str]:
    with suppress(OSError):
        for entry in os.scandir(folder):
            with suppress(OSError):
                yield str(Path(entry.path).readlink())
