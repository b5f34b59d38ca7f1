"""`pensieve top` as a program: in a pipe, as JSON, and on a pseudo-terminal."""

import json
import re
import signal
import termios
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from pensieve.cli.client.activity_reader import ACTIVITY, HISTORY
from tests.cli.fake_server import FakeServer, serving
from tests.cli.program import at_terminal, pensieve
from tests.cli.top.recorded import ANSWER, PROMPT, activity, history

# pexpect forks. The fake server's thread holds no lock that the child needs before its exec.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

LEAVES = "\x1b[?1049l"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with serving() as server:
        server.bodies = {ACTIVITY: lambda: activity(PROMPT, ANSWER), HISTORY: history}
        yield server


def watching(server: FakeServer, home: Path, *arguments: str) -> "pexpect.spawn[str]":
    child = at_terminal("top", *arguments, home=home, PENSIEVE_PORT=str(server.server_port))
    child.expect_exact("q quits")
    return child


def test_pipe_gets_one_screen_without_escapes(server: FakeServer, tmp_path: Path) -> None:
    done = pensieve("top", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
    rows = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout
    assert rows[0].startswith("server       ready, qwen3-coder-30b")
    assert any(re.match(r"claude-code +3f2a9c1e .* 38 % +19 s", row) for row in rows)
    assert "q quits" not in rows


def test_json_is_one_object_with_both_bodies(server: FakeServer, tmp_path: Path) -> None:
    done = pensieve("top", "--json", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
    assert json.loads(done.stdout) == {**history(), **activity(PROMPT, ANSWER)}


@pytest.mark.parametrize("arguments", [["top"], ["top", "--json"]])
def test_without_a_server_the_start_command_is_shown(arguments: list[str], tmp_path: Path) -> None:
    with serving() as gone:
        port = gone.server_port
    done = pensieve(*arguments, home=tmp_path, PENSIEVE_PORT=str(port))
    assert (done.returncode, done.stdout) == (69, b"")
    assert b"pensieve start" in done.stderr


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_q_and_ctrl_c_leave_and_restore_the_terminal(
    key: str, server: FakeServer, tmp_path: Path
) -> None:
    child = at_terminal("top", home=tmp_path, PENSIEVE_PORT=str(server.server_port))
    before = termios.tcgetattr(child.child_fd)
    child.expect_exact("q quits")
    assert termios.tcgetattr(child.child_fd) != before
    child.send(key)
    rest = child.read()
    assert termios.tcgetattr(child.child_fd) == before
    child.close()
    assert child.exitstatus == 0
    assert rest.count(LEAVES) == 1
    assert rest.rindex("\x1b[?25h") >= 0


def test_server_that_stops_and_returns_is_shown_and_recovered_from(tmp_path: Path) -> None:
    with serving() as server:
        server.bodies = {ACTIVITY: lambda: activity(PROMPT), HISTORY: history}
        child = watching(server, tmp_path, "--interval", "0.2")
        server.bodies = {}
        child.expect_exact("no answer for 0 s")
        child.expect_exact("The server, version 0.1.0, does not report its activity.")
        server.bodies = {ACTIVITY: lambda: activity(ANSWER), HISTORY: history}
        child.expect("codex .*128 of 1,024")
        child.send("q")
        child.read()
        child.close()
    assert child.exitstatus == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signal_restores_the_terminal(server: FakeServer, tmp_path: Path, number: int) -> None:
    child = watching(server, tmp_path)
    child.kill(number)
    assert child.read().count(LEAVES) == 1
    child.close()
    assert child.exitstatus == 128 + number
