"""A server without work: its memory is back with the system, and the next question is warm."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import KEY, MODEL, Journey, free_port
from tests.e2e.test_journey import health, is_alive, worker_pids

IDLE_MINUTES = "0.02"
ASLEEP = "engine worker unloaded while idle"
# Longer than what is kept on disk at the least.
STORY = "There was a dragon who lived on a hill near the sea. " * 40


@pytest.fixture
def own(server: Journey, tmp_path: Path) -> Iterator[Journey]:
    """A server of its own that sleeps after a second; the model is already there."""
    own = Journey(tmp_path / "own home", free_port())
    own.home.mkdir()
    (own.home / "models").symlink_to(server.home / "models")
    own.start("--idle-unload", IDLE_MINUTES)
    yield own
    own.pensieve("stop", "--force")


def resident_bytes(pid: int) -> int:
    """0 where the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields.get("VmRSS", "0 kB").split()[0]) * 1024


def sleep_of(own: Journey) -> int:
    """How often the server has gone to sleep."""
    return (own.home / "logs" / "server.log").read_text().count(ASLEEP)


def fallen_asleep(own: Journey, times: int) -> None:
    deadline = time.monotonic() + 120
    while sleep_of(own) < times:
        assert time.monotonic() < deadline


def asked(own: Journey) -> tuple[float, list[dict]]:
    """Seconds until the stream began, and its events."""
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
        begun_s = time.monotonic() - began_at
        data = [line.removeprefix("data: ") for line in (first, *lines) if "data: " in line]
    assert response.status_code == 200
    return begun_s, [json.loads(event) for event in data]


def text_of(events: list[dict]) -> str:
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    return "".join(delta["text"] for delta in deltas)


def test_an_idle_server_gives_its_memory_back_and_wakes_warm(own: Journey) -> None:
    (worker,) = worker_pids(own)
    _, first = asked(own)
    held = resident_bytes(worker)
    assert held > 200_000_000
    context = health(own)["context_tokens"]

    fallen_asleep(own, 1)
    assert not is_alive(worker)
    assert (resident_bytes(worker), worker_pids(own)) == (0, [])
    report = httpx.get(f"{own.base_url}/health")
    assert (report.status_code, report.json()["status"]) == (200, "asleep")
    assert report.json()["context_tokens"] == context
    assert "skipped, the model is asleep" in own.pensieve("doctor", check=False).stdout
    assert health(own)["status"] == "asleep"
    status = own.pensieve("status").stdout
    assert "asleep" in status
    counted = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"x-api-key": KEY}
    httpx.post(f"{own.base_url}/v1/messages/count_tokens", json=counted, headers=headers)
    refused = httpx.post(f"{own.base_url}/v1/messages", json=counted, headers=headers)
    assert refused.status_code == 400
    assert health(own)["status"] == "asleep"

    begun_s, second = asked(own)
    assert [event["type"] for event in second[:2]] == ["message_start", "ping"]
    assert begun_s < 1
    assert text_of(second) == text_of(first)
    (usage,) = (event["usage"] for event in second if event["type"] == "message_delta")
    assert usage["cache_read_input_tokens"] > 256
    assert health(own)["restarts"] == 0

    fallen_asleep(own, 2)
    own.pensieve("stop")
    assert not is_alive(worker)
