"""The server process: its limit of open files, and its end when its program is removed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from pensieve.server.run import program_removed, raise_file_limit
from tests.support.ports import free_port
from tests.support.programs import run_program

ROOT = Path(__file__).parents[2]
INFINITY = 2**63 - 1


class Limits:
    """Replaces the module `resource`."""

    RLIMIT_NOFILE = 8
    RLIM_INFINITY = INFINITY

    def __init__(self, soft: int, hard: int, *, refuses: bool = False) -> None:
        self.now = (soft, hard)
        self._refuses = refuses

    def getrlimit(self, kind: int) -> tuple[int, int]:
        assert kind == self.RLIMIT_NOFILE
        return self.now

    def setrlimit(self, kind: int, limits: tuple[int, int]) -> None:
        assert kind == self.RLIMIT_NOFILE
        if self._refuses:
            raise ValueError("not allowed to raise maximum limit")
        self.now = limits


@pytest.mark.parametrize(
    ("soft", "hard", "then"),
    [
        (256, INFINITY, 4096),
        (256, 1024, 1024),
        (8192, 8192, 8192),
        (INFINITY, INFINITY, INFINITY),
    ],
)
def test_file_limit_is_raised_and_never_lowered(soft: int, hard: int, then: int) -> None:
    limits = Limits(soft, hard)
    raise_file_limit(limits)
    assert limits.now == (then, hard)


def test_file_limit_that_cannot_be_raised_stays() -> None:
    limits = Limits(256, INFINITY, refuses=True)
    raise_file_limit(limits)
    assert limits.now == (256, INFINITY)


@pytest.mark.anyio
async def test_program_is_polled_until_removed() -> None:
    looks = iter([True, True, False])
    await program_removed(lambda: next(looks), interval_s=0)
    assert list(looks) == []


SERVER = """
import sys
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from pensieve.cli import app
from pensieve.cli.lifecycle.launching import run_in_foreground
from pensieve.cli.lifecycle.launching import Dependencies
from pensieve.errors import PensieveError, ProgramReplacedError
from pensieve.machine import Machine
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.server.http.uvicorn_server import http_server, run_until_signal
from pensieve.server.run import program_removed
from pensieve.settings.resolve import Flags, resolve

async def respond(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first, ", "more_body": True})
    await anyio.to_thread.run_sync(sys.stdin.readline)
    await send({"type": "http.response.body", "body": b"last"})

async def until_replaced(listener):
    server = http_server(respond, grace_s=30)
    if await run_until_signal(server, [listener], partial(program_removed, interval_s=0.01)):
        raise ProgramReplacedError

flags = Flags(model="tiny", device="cpu", port=int(sys.argv[1]))
parts = Dependencies(
    inspect=lambda: Machine("Linux", "x86_64", "3", has_mlx_cpu=True),
    fetch=lambda name, paths: ModelFolder(name, name, Path()),
    serve=lambda settings, folder, device, listener: anyio.run(until_replaced, listener),
    server_command=lambda flags: [],
    check=lambda name, paths: None,
)
try:
    run_in_foreground(resolve(flags), flags, parts)
except PensieveError as error:
    sys.exit(app._report(error))
"""


def test_server_with_removed_keg_finishes_answers_and_exits_nonzero(
    tmp_path: Path,
) -> None:
    """launchd restarts it because of that code: KeepAlive of the formula is for failed exits."""
    keg = tmp_path / "Cellar" / "pensieve" / "0.1.0"
    shutil.copytree(ROOT / "pensieve", keg / "lib" / "pensieve", ignore=lambda *_: ["__pycache__"])
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-P", "-c", SERVER, str(port)],
        env=os.environ | {"PYTHONPATH": str(keg / "lib"), "PENSIEVE_HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin
        assert server.stderr
        assert "pensieve serves tiny" in server.stderr.readline()
        with httpx.stream("GET", f"http://127.0.0.1:{port}/", timeout=20) as response:
            parts = response.iter_text()
            assert next(parts) == "first, "
            keg.rename(keg.with_name("0.1.0.removed"))
            assert "stopping after open answers finish" in server.stderr.readline()
            server.stdin.write("\n")
            server.stdin.flush()
            assert "".join(parts) == "last"
        stderr = server.stderr.read()
        assert server.wait(20) == 75, stderr
    assert "pensieve was replaced" in stderr
    assert "pensieve start" in stderr
    assert "Traceback" not in stderr
    assert list((tmp_path / "home" / "state").iterdir()) == []


def test_metrics_stay_in_memory_whatever_the_environment_says(tmp_path: Path) -> None:
    program = (
        "from pensieve.server.run import import_server; import_server();"
        "from prometheus_client import values; print(values.ValueClass.__name__)"
    )
    variables = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "missing")}
    done = run_program([sys.executable, "-c", program], env=variables)
    assert done.stdout == "MutexValue\n"
