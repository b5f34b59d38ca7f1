"""The server's life as a whole, with the real program: many starts at once, sudden deaths, and its end amid open answers.

PENSIEVE_LIFE_ROUNDS raises how often each is done (1 in the suite), PENSIEVE_LIFE_STARTS how many starts come at once.
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

from tests.e2e.conftest import KEY, MODEL, Journey, free_port
from tests.e2e.test_journey import health, is_alive, worker_pids

ROUNDS = int(os.environ.get("PENSIEVE_LIFE_ROUNDS", "1"))
STARTS = int(os.environ.get("PENSIEVE_LIFE_STARTS", "6"))
STREAMS = 8
SERVICE = "homebrew.mxcl.pensieve"


@pytest.fixture
def own(server: Journey, tmp_path: Path) -> Iterator[Journey]:
    """A home of its own in which the model is already."""
    own = Journey(tmp_path / "own home", free_port())
    own.home.mkdir()
    (own.home / "models").symlink_to(server.home / "models")
    yield own
    own.pensieve("stop", "--force")


def servers_of(home: Path) -> list[int]:
    """Processes that serve this home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_server = b"--foreground" in (process / "cmdline").read_bytes()
            variables = (process / "environ").read_bytes().split(b"\0")
            if is_server and f"PENSIEVE_HOME={home}".encode() in variables:
                found.append(int(process.name))
    return [pid for pid in found if is_alive(pid)]


def start_processes(own: Journey, count: int) -> list[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "pensieve", "start", "--model", MODEL, "--device", "cpu"]
    return [
        subprocess.Popen(
            words,
            env=own.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_of_many_starts_at_once_one_becomes_the_server_and_none_fails(
    _round: int, own: Journey
) -> None:
    starts = start_processes(own, STARTS)
    said = [start.communicate(timeout=300) for start in starts]
    assert [start.returncode for start in starts] == [0] * STARTS, said
    (pid,) = servers_of(own.home)
    assert health(own)["pid"] == pid
    assert all(f"(pid {pid}, {own.base_url})" in out for out, _ in said)
    assert sum("is running" in out for out, _ in said) == 1


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_ctrl_c_ends_a_start_and_what_it_started(_round: int, own: Journey) -> None:
    (start,) = start_processes(own, 1)
    own.wait_for("pensieve serves")
    assert (own.home / "state" / "server.json").exists()
    start.send_signal(signal.SIGINT)
    out, err = start.communicate(timeout=60)
    assert (start.returncode, out) == (130, "")
    assert err.endswith("Interrupted. No server is running. Start it again with: pensieve start\n")
    assert servers_of(own.home) == []
    assert [path for path in (own.home / "state").rglob("*") if path.is_file()] == []


def test_a_model_that_is_damaged_ends_a_start_with_its_own_code(
    own: Journey, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    done = own.pensieve("start", "--model", str(tmp_path), "--device", "cpu", check=False)
    assert (done.returncode, done.stdout) == (65, "")
    assert "tokenizer.json" in done.stderr


def test_a_killed_server_is_no_obstacle_to_the_next(own: Journey) -> None:
    own.start()
    for _ in range(ROUNDS):
        workers, pid = worker_pids(own), health(own)["pid"]
        os.kill(pid, signal.SIGKILL)
        said = own.start().stdout
        assert "is running" in said
        assert health(own)["pid"] != pid
        assert not any(map(is_alive, [pid, *workers]))
        assert len(servers_of(own.home)) == 1


# its end


@contextlib.contextmanager
def service(own: Journey) -> Iterator[subprocess.Popen[bytes]]:
    """A server as `brew services` runs it."""
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
        # A start beside it would otherwise become the server as likely as this.
        own.wait_for("pensieve serves", log)
        yield child
        child.kill()


class Stream(threading.Thread):
    """One open answer; `kinds` are its events, in order."""

    def __init__(self, own: Journey, max_tokens: int) -> None:
        super().__init__()
        self.has_begun = threading.Event()
        self.kinds: list[str] = []
        self.last: dict = {}
        self.broke: Exception | None = None
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
                        self.has_begun.set()
        except httpx.HTTPError as error:
            self.broke = error
        finally:
            self.has_begun.set()


def open_streams(own: Journey, max_tokens: list[int]) -> list[Stream]:
    streams = [Stream(own, count) for count in max_tokens]
    assert all(stream.has_begun.wait(120) for stream in streams)
    return streams


def ended_properly(stream: Stream) -> bool:
    """With its last event, or with the error that clients take for a busy server; and the response closed."""
    stream.join(60)
    is_whole = stream.kinds[-1] == "message_stop"
    is_told = stream.kinds[-1] == "error" and stream.last["error"]["type"] == "overloaded_error"
    return stream.broke is None and (is_whole or is_told)


def is_refused(own: Journey) -> bool:
    try:
        httpx.get(f"{own.base_url}/health", timeout=30)
    except httpx.HTTPError:
        return True
    return False


@pytest.mark.parametrize("_round", range(ROUNDS))
def test_a_service_is_recognised_lets_answers_end_and_at_a_second_signal_ends_them(
    _round: int, own: Journey
) -> None:
    with service(own) as child:
        said = own.start()
        assert f"is already running (pid {child.pid}" in said.stdout
        told = json.loads(own.pensieve("status", "--json").stdout)
        assert (told["service"], told["log"]) == (SERVICE, str(own.home / "brew.log"))
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
def test_a_service_amid_long_answers_ends_before_launchd_kills_it(
    _round: int, own: Journey
) -> None:
    with service(own) as child:
        own.start()
        workers = worker_pids(own)
        streams = open_streams(own, [60, 200, 4000, 8000] * (STREAMS // 4))
        began_at = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
        took_s = time.monotonic() - began_at
        assert all(map(ended_properly, streams))
        kinds = [stream.kinds[-1] for stream in streams]
        sys.stderr.write(f"ended in {took_s:.1f} s: {kinds.count('message_stop')} whole\n")
        assert took_s <= 5
        assert not any(map(is_alive, workers))
