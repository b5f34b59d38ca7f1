"""An idle server unloads its model, and the next request reuses its cached prefix."""

import json
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

IDLE_MINUTES = "0.02"
ASLEEP = "engine worker unloaded while idle"
# Longer than the shortest prefix that is written to disk.
STORY = "There was a dragon who lived on a hill near the sea. " * 40


@pytest.fixture
def own(server: Installation, tmp_path: Path) -> Iterator[Installation]:
    """A server that unloads its model after a second."""
    own = installation_with_model(server, tmp_path / "own home")
    own.start("--idle-unload", IDLE_MINUTES)
    yield own
    own.pensieve("stop", "--force")


def resident_bytes(pid: int) -> int:
    """Return 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields.get("VmRSS", "0 kB").split()[0]) * 1024


def stream_story(own: Installation) -> tuple[float, list[dict]]:
    """Return the seconds until the first line of a stream, and its events."""
    body = {
        "model": MODEL,
        "max_tokens": 8,
        "temperature": 0,
        "stream": True,
        "messages": [{"role": "user", "content": STORY}],
    }
    began_at = time.monotonic()
    with httpx.stream(
        "POST", f"{own.base_url}/v1/messages", json=body, headers={"x-api-key": KEY}, timeout=120
    ) as response:
        lines = response.iter_lines()
        first = next(lines)
        first_line_s = time.monotonic() - began_at
        data = [line.removeprefix("data: ") for line in (first, *lines) if "data: " in line]
    assert response.status_code == 200
    return first_line_s, [json.loads(event) for event in data]


def text_of(events: list[dict]) -> str:
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    return "".join(delta["text"] for delta in deltas)


def test_an_idle_server_frees_its_memory_and_reuses_cached_prefixes(own: Installation) -> None:
    (worker,) = worker_pids(own)
    _, first = stream_story(own)
    loaded_bytes = resident_bytes(worker)
    assert loaded_bytes > 200_000_000
    context = health(own)["context_tokens"]

    own.wait_for(ASLEEP)
    assert not is_alive(worker)
    assert (resident_bytes(worker), worker_pids(own)) == (0, [])
    report = httpx.get(f"{own.base_url}/health")
    assert (report.status_code, report.json()["status"]) == (200, "asleep")
    assert report.json()["context_tokens"] == context
    assert "skipped, the model is asleep" in own.pensieve("doctor", check=False).stdout
    assert health(own)["status"] == "asleep"
    status = own.pensieve("status").stdout
    assert "asleep" in status
    request = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"x-api-key": KEY}
    httpx.post(f"{own.base_url}/v1/messages/count_tokens", json=request, headers=headers)
    refused = httpx.post(f"{own.base_url}/v1/messages", json=request, headers=headers)
    assert refused.status_code == 400
    assert health(own)["status"] == "asleep"

    first_line_s, second = stream_story(own)
    assert [event["type"] for event in second[:2]] == ["message_start", "ping"]
    assert first_line_s < 1
    assert text_of(second) == text_of(first)
    (usage,) = (event["usage"] for event in second if event["type"] == "message_delta")
    assert usage["cache_read_input_tokens"] > 256
    assert health(own)["restarts"] == 0

    own.wait_for(ASLEEP, times=2)
    own.pensieve("stop")
    assert not is_alive(worker)
