"""Claude Code without a screen, against models whose answers are their own: nothing is scripted."""

import re
import shutil
import time
from ipaddress import ip_address
from itertools import islice
from pathlib import Path

import httpx
import pytest

from tests.claude.driving import ROOT, ClaudeCode
from tests.claude.taught import DONE, REPLY, TASK, WORD
from tests.e2e.installation import Installation

LONG = "Nothing of this matters at all. " * 8000


def read_share(usage: dict[str, int]) -> float:
    """How much of a prompt was read from the cache."""
    return usage["cache_read_input_tokens"] / prompt_tokens(usage)


def prompt_tokens(usage: dict[str, int]) -> int:
    """Read from the cache or not."""
    kinds = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(usage[kind] for kind in kinds)


def test_the_embedded_model_answers_a_question(claude: ClaudeCode, embedded: Installation) -> None:
    """Its first words: how long such a model goes on is nobody's business. Nobody listens then, and it is free again."""
    question = "What is the capital of France?"
    with claude.streaming(embedded, "--lite", "-p", question, stdin="") as lines:
        events = (line["event"] for line in lines if line["type"] == "stream_event")
        usage = next(events)["message"]["usage"]
        deltas = (event["delta"] for event in events if event["type"] == "content_block_delta")
        said = "".join(delta["text"] for delta in islice(deltas, 8))
    assert said.strip()
    assert 800 < prompt_tokens(usage) < 1300
    deadline = time.monotonic() + 60
    while httpx.get(f"{embedded.base_url}/health").json()["in_flight"]:
        assert time.monotonic() < deadline


def test_a_taught_model_creates_a_file_edits_it_and_runs_a_command(
    claude: ClaudeCode, taught: Installation
) -> None:
    said = claude.asked(taught, "-p", TASK, "--allowedTools", "Write,Edit,Bash")
    assert said.tools_used == ["Write", "Edit", "Bash"]
    assert (claude.work / "hello.txt").read_text() == "Hello, world!"
    assert (claude.work / "seen.txt").read_text() == "Hello, world!"
    assert said.text == DONE
    assert all(read_share(usage) > 0.95 for usage in said.usages[1:])


def test_the_second_turn_of_a_session_is_read_from_the_cache(
    claude: ClaudeCode, taught: Installation
) -> None:
    first = claude.asked(taught, "-p", WORD)
    second = claude.asked(taught, "--continue", "-p", WORD)
    assert first.text == second.text == REPLY
    assert second.result["session_id"] == first.result["session_id"]
    (window,) = second.result["modelUsage"].values()
    assert window["contextWindow"] == 32_768
    (usage,) = second.usages
    assert read_share(usage) >= 0.95


def test_a_prompt_over_the_context_is_reported_in_words(
    claude: ClaudeCode, taught: Installation
) -> None:
    said = claude.asked(taught, "-p", WORD, stdin=LONG)
    assert said.result["is_error"]
    assert said.text.startswith("Prompt is too long")


def test_a_conversation_that_nears_the_context_is_compacted_and_goes_on(
    claude: ClaudeCode, taught: Installation
) -> None:
    paper = (ROOT / "LICENSE").read_text(encoding="utf-8") * 3
    assert claude.asked(taught, "-p", WORD, stdin=paper).text == REPLY
    said = claude.asked(taught, "--continue", "-p", WORD, stdin=paper)
    assert [line for line in said.lines if line.get("subtype") == "compact_boundary"]
    assert said.text == REPLY


def test_it_speaks_to_nobody_but_the_server(
    claude: ClaudeCode, taught: Installation, tmp_path: Path
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = tmp_path / "calls"
    traced = ("strace", "-f", "-qq", "-e", "trace=connect", "-o", str(calls))
    assert claude.asked(taught, "-p", WORD, before=traced).text == REPLY
    text = calls.read_text(encoding="utf-8", errors="replace")
    reached = set(re.findall(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"', text))
    assert f"htons({taught.port})" in text
    assert {address for address in reached if not ip_address(address).is_loopback} == set()
    # A look-up of a name would be one too.
    assert "htons(53)" not in text
