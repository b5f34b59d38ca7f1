"""Whoever answers is killed in the middle of it: Claude Code asks again by itself, by a stream, and is answered."""

import os
import signal
import subprocess

import pytest

from tests.claude.conftest import start
from tests.claude.driving import ROOT, ClaudeCode
from tests.claude.taught import REPLY, WORD
from tests.e2e.installation import Installation

# Processing it takes seconds, once the stream has begun.
PAPER = (ROOT / "LICENSE").read_text(encoding="utf-8") * 2


@pytest.mark.parametrize("who", ["worker", "server"])
def test_an_answer_that_was_cut_off_is_asked_for_again(
    who: str, claude: ClaudeCode, taught: Installation
) -> None:
    server = server_pid(taught)
    victim = server if who == "server" else child_of(server)
    with claude.streaming(taught, "-p", WORD, stdin=f"For the {who}. {PAPER}") as lines:
        for line in lines:
            if event_of(line) == "message_start":
                break
        os.kill(victim, signal.SIGKILL)
        if who == "server":
            start(taught)
        rest = list(lines)
    events = [event_of(line) for line in rest if event_of(line)]
    assert events.count("message_start") == 1
    assert events[-1] == "message_stop"
    assert rest[-1]["result"] == REPLY


def event_of(line: dict[str, dict[str, str]]) -> str | None:
    return line["event"]["type"] if line["type"] == "stream_event" else None


def server_pid(journey: Installation) -> int:
    shown = journey.pensieve("status", check=False).stdout
    rows = dict(line.split(maxsplit=1) for line in shown.splitlines())
    return int(rows["pid"])


def child_of(pid: int) -> int:
    """The worker is the server's only child."""
    return int(subprocess.run(["pgrep", "-P", str(pid)], check=True, capture_output=True).stdout)
