"""`pensieve chat` with the real server and the small model: a script's question, a person's conversation."""

import json
import sys
import time

import httpx
import pexpect
import pytest

from tests.e2e.conftest import MODEL, Journey, free_port

# pexpect forks; no thread here holds a lock that the child would miss before it executes pensieve.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

CAPITAL = "What is the capital of France?"
LIKELIEST = ("--temperature", "0")
PROMPT = "\x1b[?2004h"  # the line editor turns bracketed paste on for each line


def on_terminal(journey: Journey) -> "pexpect.spawn[str]":
    return pexpect.spawn(
        sys.executable,
        ["-m", "pensieve", "chat", *LIKELIEST],
        env=journey.environment
        | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "PENSIEVE_MODEL": MODEL}
        | {"PENSIEVE_DEVICE": "cpu"},
        encoding="utf-8",
        timeout=120,
        dimensions=(24, 80),
    )


def says(child: "pexpect.spawn[str]", line: str) -> None:
    child.expect_exact(PROMPT)
    child.send(line + "\r")


def leaves(child: "pexpect.spawn[str]") -> int:
    child.expect_exact(PROMPT)
    child.sendeof()
    child.read()
    child.close()
    return child.exitstatus


def wait_for_answers(server: Journey, count: int) -> None:
    """Until so many are being made."""
    began_at = time.monotonic()
    while httpx.get(f"{server.base_url}/health").json()["in_flight"] != count:
        assert time.monotonic() < began_at + 60


def test_a_scripts_question_is_one_object(server: Journey) -> None:
    asked = ("chat", CAPITAL, "--json", "--max-tokens", "24", *LIKELIEST)
    said = json.loads(server.pensieve(*asked).stdout)
    assert "Paris" in said["text"]
    assert (said["model"], said["stop_reason"]) == (MODEL, "end_turn")
    assert said["usage"]["output_tokens"] > 1
    assert said["timings"]["tokens_per_second"] > 0


def test_ctrl_c_ends_the_answer_in_the_server_too(server: Journey) -> None:
    child = on_terminal(server)
    says(child, "Write a long story about a dragon.")
    # What was typed is shown before it is sent: the server tells when it has it.
    wait_for_answers(server, 1)
    child.sendintr()
    wait_for_answers(server, 0)
    child.expect("ended")
    says(child, "/clear")
    says(child, CAPITAL)
    child.expect("Paris")
    child.expect(r"tokens per second")
    assert leaves(child) == 0


def test_a_conversation_begins_without_a_server_and_outlives_one(server: Journey) -> None:
    """In a home of its own, whose model is already there."""
    own = Journey(server.home.parent / "chat home", free_port())
    own.home.mkdir()
    (own.home / "models").symlink_to(server.home / "models")
    child = on_terminal(own)
    try:
        child.expect("Start it now")
        child.send("\r")
        says(child, CAPITAL)
        child.expect("Paris")
        child.expect_exact(PROMPT)
        own.pensieve("stop")
        child.send("And of Italy?\r")
        child.expect("Start it now")
        child.send("\r")
        child.expect("Reconnected")
        child.expect("tokens per second")
        says(child, "/stats")
        child.expect("2 answers")
        assert leaves(child) == 0
    finally:
        own.pensieve("stop")
