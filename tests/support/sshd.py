"""A real sshd on loopback with keys of its own, which runs this checkout's `pensieve`."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ports import free_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
START_S = 10.0


@dataclass(frozen=True)
class Sshd:
    """A running server, and the client that reaches it as `mac-b`."""

    pid: int
    port: int
    command: tuple[str, ...]  # ssh with the options that reach it

    @property
    def setting(self) -> str:
        return " ".join(self.command)


def require_sshd() -> str:
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("sshd is not installed")
    return SSHD


@contextmanager
def running_sshd(folder: Path, variables: Mapping[str, str]) -> Generator[Sshd]:
    """Run sshd; commands that it starts have `variables`, and this Python's `pensieve` in PATH."""
    program = require_sshd()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host_key", "user_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
    port = free_port()
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    values = {"PATH": path, **variables}
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile none\nUsePAM no\n"
        "StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "SetEnv " + " ".join(f'"{name}={value}"' for name, value in values.items()) + "\n"
    )
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (folder / "ssh_config").write_text(
        f"Host mac-b\n HostName 127.0.0.1\n Port {port}\n"
        f" IdentityFile {folder}/user_key\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {folder}/known_hosts\n"
    )
    if os.geteuid() == 0:
        # For its child that reads what is not authenticated yet.
        Path("/run/sshd").mkdir(exist_ok=True)
    log = folder / "sshd.log"
    arguments = [program, "-D", "-e", "-f", str(folder / "sshd_config")]
    with log.open("wb") as errors, subprocess.Popen(arguments, stderr=errors) as process:
        try:
            _wait_listening(port)
            yield Sshd(process.pid, port, ("ssh", "-F", str(folder / "ssh_config")))
        finally:
            process.terminate()


def _wait_listening(port: int) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.02)
    pytest.fail("sshd does not listen")
