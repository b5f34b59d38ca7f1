"""Starts at the same time, kills and stops during answers, with the real program.

PENSIEVE_LIFE_ROUNDS: repetitions (default 1). PENSIEVE_LIFE_STARTS: starts at once (default 6).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.installation import (
    KEY,
    MODEL,
    Installation,
    health,
    installation_with_model,
    is_alive,
    worker_pids,
)

ROUNDS = int(os.environ.get("PENSIEVE_LIFE_ROUNDS", "1"))
STARTS = int(os.environ.get("PENSIEVE_LIFE_STARTS", "6"))
STREAMS = 8
SERVICE = "homebrew.mxcl.pensieve"


@pytest.fixture
def own(server: Installation, tmp_path: Path) -> Iterator[Installation]:
    own = installation_with_model(server, tmp_path / "own home")
    yield own
    own.pensieve("stop", "--force")


@pytest.fixture(scope="module")
def shared(
    server: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A home for tests that begin with a start, which finds the server of the test before."""
    shared = installation_with_model(server, tmp_path_factory.mktemp("shared") / "home")
    yield shared
    shared.pensieve("stop", "--force")


def servers_of(home: Path) -> list[int]:
    """Return the server processes of this home."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_server = b"--foreground" in (process / "cmdline").read_bytes()
            variables = (process / "environ").read_bytes().split(b"\0")
            if is_server and f"PENSIEVE_HOME={home}".encode() in variables:
                pids.append(int(process.name))
    return [pid for pid in pids if is_alive(pid)]


def start_processes(own: Installation, count: int) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "pensieve", "start", "--model", MODEL, "--device", "cpu"]
    return [
        subprocess.Popen(
            command,
            env=own.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_of_many_starts_one_becomes_the_server_and_none_fails(
    _round: int, shared: Installation
) -> None:
    shared.pensieve("stop")
    starts = start_processes(shared, STARTS)
    outputs = [start.communicate(timeout=300) for start in starts]
    assert [start.returncode for start in starts] == [0] * STARTS, outputs
    (pid,) = servers_of(shared.home)
    assert health(shared)["pid"] == pid
    assert all(f"(pid {pid}, {shared.base_url})" in out for out, _ in outputs)
    assert sum("is running" in out for out, _ in outputs) == 1


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_ctrl_c_ends_a_start_and_its_server(_round: int, own: Installation) -> None:
    (start,) = start_processes(own, 1)
    own.wait_for("pensieve serves")
    assert (own.home / "state" / "server.json").exists()
    start.send_signal(signal.SIGINT)
    out, err = start.communicate(timeout=60)
    assert (start.returncode, out) == (130, "")
    again = f"pensieve start --model {MODEL} --device cpu"
    assert err.endswith(f"Interrupted. No server is running. Start it again with: {again}\n")
    assert servers_of(own.home) == []
    assert [path for path in (own.home / "state").rglob("*") if path.is_file()] == []


def test_a_damaged_model_ends_a_start_with_code_65(own: Installation, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    done = own.pensieve("start", "--model", str(tmp_path), "--device", "cpu", check=False)
    assert (done.returncode, done.stdout) == (65, "")
    assert "tokenizer.json" in done.stderr


def test_a_killed_server_does_not_prevent_the_next_start(shared: Installation) -> None:
    shared.start()
    for _ in range(ROUNDS):
        workers, pid = worker_pids(shared), health(shared)["pid"]
        os.kill(pid, signal.SIGKILL)
        assert "is running" in shared.start().stdout
        assert health(shared)["pid"] != pid
        assert not any(map(is_alive, [pid, *workers]))
        assert len(servers_of(shared.home)) == 1


# Stops


def test_stop_leaves_no_process_and_no_state_file(shared: Installation) -> None:
    shared.start()
    server_pid = health(shared)["pid"]
    workers = worker_pids(shared)
    shared.pensieve("stop")
    assert workers
    assert not [pid for pid in (server_pid, *workers) if is_alive(pid)]
    assert not [path for path in (shared.home / "state").rglob("*") if path.is_file()]
    assert shared.pensieve("status", check=False).returncode == 3
    assert shared.pensieve("stop").returncode == 0


@contextlib.contextmanager
def service(own: Installation) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server as `brew services` does."""
    log = own.home / "brew.log"
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [sys.executable, "-m", "pensieve", "start", "--foreground"],
            env=own.environment
            | {"PENSIEVE_MODEL": MODEL, "PENSIEVE_DEVICE": "cpu", "XPC_SERVICE_NAME": SERVICE},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as child,
    ):
        # Otherwise a concurrent start might become the server.
        own.wait_for("pensieve serves", log)
        yield child
        child.kill()


class Stream(threading.Thread):
    """One open answer; `kinds` are the types of its events, in order."""

    def __init__(self, own: Installation, max_tokens: int) -> None:
        super().__init__()
        self.has_started = threading.Event()
        self.kinds: list[str] = []
        self.last: dict = {}
        self.error: Exception | None = None
        self._url = f"{own.base_url}/v1/messages"
        self._body = {
            "model": MODEL,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "messages": [{"role": "user", "content": "Write a long story about a dragon."}],
        }
        self.start()

    def run(self) -> None:
        try:
            with httpx.stream(
                "POST", self._url, json=self._body, headers={"x-api-key": KEY}, timeout=120
            ) as response:
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        self.last = json.loads(line.removeprefix("data: "))
                        self.kinds.append(self.last["type"])
                    if "content_block_delta" in self.kinds:
                        self.has_started.set()
        except httpx.HTTPError as error:
            self.error = error
        finally:
            self.has_started.set()


def open_streams(own: Installation, max_tokens: list[int]) -> list[Stream]:
    streams = [Stream(own, count) for count in max_tokens]
    assert all(stream.has_started.wait(120) for stream in streams)
    return streams


def ended_properly(stream: Stream) -> bool:
    """Return whether a stream has its last event or a retryable error, and was closed."""
    stream.join(60)
    is_whole = stream.kinds[-1] == "message_stop"
    is_retryable = (
        stream.kinds[-1] == "error" and stream.last["error"]["type"] == "overloaded_error"
    )
    return stream.error is None and (is_whole or is_retryable)


def is_refused(own: Installation) -> bool:
    try:
        httpx.get(f"{own.base_url}/health", timeout=30)
    except httpx.HTTPError:
        return True
    return False


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_a_service_finishes_answers_and_ends_them_at_a_second_signal(
    _round: int, own: Installation
) -> None:
    with service(own) as child:
        assert f"is already running (pid {child.pid}" in own.start().stdout
        status = json.loads(own.pensieve("status", "--json").stdout)
        assert (status["service"], status["log"]) == (SERVICE, str(own.home / "brew.log"))
        assert "is loaded" in own.pensieve("logs").stdout
        refused = own.pensieve("restart", check=False)
        assert (refused.returncode, child.poll()) == (1, None)
        assert "brew services restart pensieve" in refused.stderr

        workers = worker_pids(own)
        short, *long = open_streams(own, [8] + [4000] * (STREAMS - 1))
        child.send_signal(signal.SIGTERM)
        while not is_refused(own):
            pass
        assert ended_properly(short)
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
        assert all(map(ended_properly, long))
        assert {stream.kinds[-1] for stream in long} == {"error"}
        assert not any(map(is_alive, workers))


@pytest.mark.skipif("PENSIEVE_LIFE_ROUNDS" not in os.environ, reason="takes 15 s each")
@pytest.mark.parametrize("_round", range(ROUNDS))
def test_a_service_during_long_answers_ends_before_launchd_kills_it(
    _round: int, own: Installation
) -> None:
    with service(own) as child:
        own.start()
        workers = worker_pids(own)
        streams = open_streams(own, [60, 200, 4000, 8000] * (STREAMS // 4))
        stopped_at = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
        duration_s = time.monotonic() - stopped_at
        assert all(map(ended_properly, streams))
        kinds = [stream.kinds[-1] for stream in streams]
        sys.stderr.write(f"ended in {duration_s:.1f} s: {kinds.count('message_stop')} whole\n")
        assert duration_s <= 5
        assert not any(map(is_alive, workers))
