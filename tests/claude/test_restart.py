"""Claude Code retries a stream by itself after the worker or the server was killed."""

import os
import signal

import pytest

from tests.claude.claude_code import ROOT, ClaudeCode
from tests.claude.conftest import start
from tests.claude.trained import CUE, REPLY
from tests.e2e.installation import Installation
from tests.support.programs import run_program

# Its prefill takes seconds after the start of the stream.
PAPER = (ROOT / "LICENSE").read_text(encoding="utf-8") * 2


@pytest.mark.parametrize("killed", ["worker", "server"])
def test_an_interrupted_answer_is_requested_again(
    killed: str, claude: ClaudeCode, trained: Installation
) -> None:
    server = server_pid(trained)
    victim = server if killed == "server" else child_of(server)
    with claude.streaming(trained, "-p", CUE, stdin=f"For the {killed}. {PAPER}") as lines:
        for line in lines:
            if event_of(line) == "message_start":
                break
        os.kill(victim, signal.SIGKILL)
        if killed == "server":
            start(trained)
        rest = list(lines)
    events = [event_of(line) for line in rest if event_of(line)]
    assert events.count("message_start") == 1
    assert events[-1] == "message_stop"
    assert rest[-1]["result"] == REPLY


def event_of(line: dict[str, dict[str, str]]) -> str | None:
    return line["event"]["type"] if line["type"] == "stream_event" else None


def server_pid(installation: Installation) -> int:
    status = installation.pensieve("status", check=False).stdout
    rows = dict(line.split(maxsplit=1) for line in status.splitlines())
    return int(rows["pid"])


def child_of(pid: int) -> int:
    """Return the worker, the server's only child."""
    return int(run_program(["pgrep", "-P", str(pid)]).stdout)
