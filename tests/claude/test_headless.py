"""Claude Code without a terminal, with real models: no answer is scripted."""

import re
import shutil
import time
from ipaddress import ip_address
from itertools import islice
from pathlib import Path

import httpx
import pytest

from tests.claude.claude_code import ROOT, ClaudeCode
from tests.claude.trained import CUE, DONE, REPLY, TASK
from tests.e2e.installation import Installation

LONG = "Nothing of this matters at all. " * 8000


def read_share(usage: dict[str, int]) -> float:
    """Return the share of a prompt that was read from the cache."""
    return usage["cache_read_input_tokens"] / prompt_tokens(usage)


def prompt_tokens(usage: dict[str, int]) -> int:
    kinds = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(usage[kind] for kind in kinds)


def test_the_embedded_model_answers_a_question(claude: ClaudeCode, embedded: Installation) -> None:
    """Reads the first deltas only; the disconnect then ends the generation."""
    question = "What is the capital of France?"
    with claude.streaming(embedded, "--lite", "-p", question, stdin="") as lines:
        events = (line["event"] for line in lines if line["type"] == "stream_event")
        usage = next(events)["message"]["usage"]
        deltas = (event["delta"] for event in events if event["type"] == "content_block_delta")
        text = "".join(delta["text"] for delta in islice(deltas, 8))
    assert text.strip()
    assert 800 < prompt_tokens(usage) < 1300
    deadline = time.monotonic() + 60
    while httpx.get(f"{embedded.base_url}/health").json()["in_flight"]:
        assert time.monotonic() < deadline


def test_a_trained_model_creates_a_file_edits_it_and_runs_a_command(
    claude: ClaudeCode, trained: Installation
) -> None:
    output = claude.run(trained, "-p", TASK, "--allowedTools", "Write,Edit,Bash")
    assert output.tools_used == ["Write", "Edit", "Bash"]
    assert (claude.work / "hello.txt").read_text() == "Hello, world!"
    assert (claude.work / "seen.txt").read_text() == "Hello, world!"
    assert output.text == DONE
    assert all(read_share(usage) > 0.95 for usage in output.usages[1:])


def test_the_second_turn_of_a_session_is_read_from_the_cache(
    claude: ClaudeCode, trained: Installation
) -> None:
    first = claude.run(trained, "-p", CUE)
    second = claude.run(trained, "--continue", "-p", CUE)
    assert first.text == second.text == REPLY
    assert second.result["session_id"] == first.result["session_id"]
    (window,) = second.result["modelUsage"].values()
    assert window["contextWindow"] == 32_768
    (usage,) = second.usages
    assert read_share(usage) >= 0.95


def test_a_prompt_over_the_context_is_reported_as_too_long(
    claude: ClaudeCode, trained: Installation
) -> None:
    output = claude.run(trained, "-p", CUE, stdin=LONG)
    assert output.result["is_error"]
    assert output.text.startswith("Prompt is too long")


def test_a_conversation_near_the_context_is_compacted_and_continues(
    claude: ClaudeCode, trained: Installation
) -> None:
    # Claude Code compacts at about 22 000 of the 32 768 tokens here. The trained tokenizer makes
    # 8 200 to 8 900 tokens of three licences: with four, the prompts have 16 000 and 27 000.
    paper = (ROOT / "LICENSE").read_text(encoding="utf-8") * 4
    assert claude.run(trained, "-p", CUE, stdin=paper).text == REPLY
    output = claude.run(trained, "--continue", "-p", CUE, stdin=paper)
    assert [line for line in output.lines if line.get("subtype") == "compact_boundary"]
    assert output.text == REPLY


def test_claude_code_connects_only_to_the_server(
    claude: ClaudeCode, trained: Installation, tmp_path: Path
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = tmp_path / "calls"
    strace = ("strace", "-f", "-qq", "-e", "trace=connect", "-o", str(calls))
    assert claude.run(trained, "-p", CUE, wrapper=strace).text == REPLY
    text = calls.read_text(encoding="utf-8", errors="replace")
    addresses = set(re.findall(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"', text))
    assert f"htons({trained.port})" in text
    assert {address for address in addresses if not ip_address(address).is_loopback} == set()
    # No name was looked up.
    assert "htons(53)" not in text
