"""An installation with its own home and port, and its processes."""

import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import httpx

from tests.support.ports import free_port

MODEL = "smollm2-135m"
KEY = "pensieve-local-key"


@dataclass(frozen=True)
class Installation:
    """Runs the command as it is installed, with its own home and port."""

    home: Path
    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        cleaned = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PENSIEVE_", "ANTHROPIC_"))
        }
        return cleaned | {"PENSIEVE_HOME": str(self.home), "PENSIEVE_PORT": str(self.port)}

    def pensieve(
        self, *arguments: str, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "pensieve", *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    def start(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.pensieve("start", "--model", MODEL, "--device", "cpu", *options, check=check)

    def wait_for(self, text: str, log: Path | None = None, *, times: int = 1) -> None:
        """Wait for lines of a log, by default the server's, with `text`; at most five minutes."""
        log = log or self.home / "logs" / "server.log"
        follow = ["timeout", "300", "tail", "--lines=+1", "-F", str(log)]
        with subprocess.Popen(
            follow, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as tail:
            assert tail.stdout
            found = islice((line for line in tail.stdout if text in line), times)
            assert len(list(found)) == times, log.read_text()
            tail.terminate()


def installation_with_model(other: Installation, home: Path) -> Installation:
    """Make another installation that shares the downloaded models, so that it needs no network."""
    installation = Installation(home, free_port())
    home.mkdir()
    (home / "models").symlink_to(other.home / "models")
    return installation


def health(server: Installation) -> dict:
    return httpx.get(f"{server.base_url}/health").json()


def worker_pids(server: Installation) -> list[int]:
    """Return the child processes of the server."""
    pids, parent = [], str(health(server)["pid"])
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        except (OSError, ValueError):
            continue
        if fields.get("PPid") == parent:
            pids.append(int(status.parent.name))
    return pids


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that ended but was not waited for still has an entry."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
