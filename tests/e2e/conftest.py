"""One real server for the whole suite: `pensieve start` as a person types it, on the embedded model, on the CPU."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

MODEL = "smollm2-135m"
KEY = "pensieve-local-key"


@dataclass(frozen=True)
class Journey:
    """A home of its own, a port, and the command as it is installed."""

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
        """Run one command to its end."""
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

    def start(self, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.pensieve("start", "--model", MODEL, "--device", "cpu", *more, check=check)

    def wait_for(self, text: str, log: Path | None = None) -> None:
        """Until the log, the server's own where no other is named, says `text`; for five minutes at most."""
        log = log or self.home / "logs" / "server.log"
        follow = ["timeout", "300", "tail", "--lines=+1", "-F", str(log)]
        with subprocess.Popen(
            follow, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as lines:
            assert lines.stdout
            assert any(text in line for line in lines.stdout), log.read_text()
            lines.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    return Journey(tmp_path_factory.mktemp("pensieve home"), free_port())


@pytest.fixture(scope="session")
def server(journey: Journey) -> Iterator[Journey]:
    journey.start()
    yield journey
    journey.pensieve("stop")
