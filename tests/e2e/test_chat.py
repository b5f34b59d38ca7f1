"""`pensieve chat` with a real server and the small model, in a script and in a terminal."""

import json
import sys
import time

import httpx
import pexpect
import pytest

from tests.e2e.installation import MODEL, Installation, installation_with_model

# pexpect forks; no other thread holds a lock that the child needs before it executes pensieve.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

CAPITAL = "What is the capital of France?"
GREEDY = ("--temperature", "0")
PROMPT = "\x1b[?2004h"  # the line editor turns bracketed paste on for each line


def spawn_chat(installation: Installation) -> "pexpect.spawn[str]":
    return pexpect.spawn(
        sys.executable,
        ["-m", "pensieve", "chat", *GREEDY],
        env=installation.environment
        | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "PENSIEVE_MODEL": MODEL}
        | {"PENSIEVE_DEVICE": "cpu"},
        encoding="utf-8",
        timeout=120,
        dimensions=(24, 80),
    )


def type_line(child: "pexpect.spawn[str]", line: str) -> None:
    child.expect_exact(PROMPT)
    child.send(line + "\r")


def close(child: "pexpect.spawn[str]") -> int:
    """End the input; return the exit code."""
    child.expect_exact(PROMPT)
    child.sendeof()
    child.read()
    child.close()
    return child.exitstatus


def wait_for_in_flight(server: Installation, count: int) -> None:
    began_at = time.monotonic()
    while httpx.get(f"{server.base_url}/health").json()["in_flight"] != count:
        assert time.monotonic() < began_at + 60


def test_json_output_is_one_object(server: Installation) -> None:
    command = ("chat", CAPITAL, "--json", "--max-tokens", "24", *GREEDY)
    answer = json.loads(server.pensieve(*command).stdout)
    assert "Paris" in answer["text"]
    assert (answer["model"], answer["stop_reason"]) == (MODEL, "end_turn")
    assert answer["usage"]["output_tokens"] > 1
    assert answer["timings"]["tokens_per_second"] > 0


def test_ctrl_c_cancels_the_answer_in_the_server(server: Installation) -> None:
    child = spawn_chat(server)
    type_line(child, "Write a long story about a dragon.")
    # The terminal shows a line before it is sent: ask the server whether it has it.
    wait_for_in_flight(server, 1)
    child.sendintr()
    wait_for_in_flight(server, 0)
    child.expect("stopped")
    type_line(child, "/clear")
    type_line(child, CAPITAL)
    child.expect("Paris")
    child.expect(r"tokens per second")
    assert close(child) == 0


def test_a_conversation_starts_a_server_and_survives_its_stop(server: Installation) -> None:
    own = installation_with_model(server, server.home.parent / "chat home")
    child = spawn_chat(own)
    try:
        child.expect("Start it now")
        child.send("\r")
        type_line(child, CAPITAL)
        child.expect("Paris")
        child.expect_exact(PROMPT)
        own.pensieve("stop")
        child.send("And of Italy?\r")
        child.expect("Start it now")
        child.send("\r")
        child.expect("Reconnected")
        child.expect("tokens per second")
        type_line(child, "/stats")
        child.expect("2 answers")
        assert close(child) == 0
    finally:
        own.pensieve("stop")
