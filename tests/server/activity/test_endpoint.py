"""`GET /activity` and `GET /activity/history` of a whole application with a scripted engine."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from pensieve.engine.generation import Admitted, Finished, Prefilled, Started, Token
from pensieve.errors import EngineError
from pensieve.logs import OneLine
from pensieve.server.activity.findings import FindingsCache
from pensieve.server.app import AppParts
from tests.server.serving import CALL, SETTINGS, app_of, in_memory
from tests.support.fakes import ScriptedEngine, Step, says

pytestmark = pytest.mark.anyio
STREAMED = CALL | {"stream": True}
CLAUDE = {"user-agent": "claude-cli/2.1", "x-claude-code-session-id": "the session"}


class Gates:
    """Events of a script, of which the test opens one after another."""

    def __init__(self) -> None:
        self.reached = [anyio.Event() for _ in range(3)]
        self.opened = [anyio.Event() for _ in range(3)]

    @property
    def script(self) -> list[Step]:
        def gate(at: int) -> list[Step]:
            return [self.reached[at].set, self.opened[at]]

        return [
            *[Started(2), *gate(0), Admitted(), Prefilled(8), *gate(1)],
            *[Token(ord("H")), Token(ord("i")), *gate(2), Finished("stop_token", 3)],
        ]


@asynccontextmanager
async def asking(client: httpx.AsyncClient, gates: Gates) -> AsyncIterator[None]:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                await client.post("/v1/messages", json=STREAMED, headers=CLAUDE)

            tasks.start_soon(ask)
            yield


async def activity(client: httpx.AsyncClient) -> dict[str, Any]:
    return (await client.get("/activity")).json()


async def history(client: httpx.AsyncClient) -> dict[str, Any]:
    return (await client.get("/activity/history")).json()


async def test_open_request_is_followed_through_its_phases() -> None:
    gates = Gates()
    async with in_memory(app_of(ScriptedEngine([gates.script]))) as client:
        async with asking(client, gates):
            await gates.reached[0].wait()
            (queued,) = (await activity(client))["requests"]
            gates.opened[0].set()
            await gates.reached[1].wait()
            (prompt,) = (await activity(client))["requests"]
            gates.opened[1].set()
            await gates.reached[2].wait()
            report = await activity(client)
            (answer,) = report["requests"]
            gates.opened[2].set()
        after = await activity(client)
    assert [each["phase"] for each in (queued, prompt, answer)] == ["queued", "prompt", "answer"]
    assert [each["processed_tokens"] for each in (queued, prompt)] == [2, 8]
    assert (answer["output_tokens"], answer["max_tokens"], answer["is_streamed"]) == (2, 50, True)
    assert (answer["wire"], answer["route"]) == ("anthropic", "/v1/messages")
    assert (answer["client"], len(answer["session"])) == ("claude-code", 8)
    assert report["health"]["status"] == "ready"
    assert after["requests"] == []


async def test_ended_requests_are_in_the_history_newest_first() -> None:
    engine = ScriptedEngine([says("Hi", cached_tokens=3), [Started(0), EngineError("no")]])
    async with in_memory(app_of(engine)) as client:
        first = await client.post("/v1/messages", json=CALL)
        second = await client.post("/v1/chat/completions", json=CALL)
        await client.post("/v1/messages/count_tokens", json=CALL)
        await client.get("/v1/messages")
        report = await history(client)
    assert [each["id"] for each in report["recent"]] == [
        second.headers["request-id"],
        first.headers["request-id"],
    ]
    failed, answered = report["recent"]
    assert (failed["status"], failed["wire"], failed["output_tokens"]) == (500, "chat", 0)
    assert (answered["status"], answered["cached_tokens"], answered["output_tokens"]) == (200, 3, 3)
    assert answered["content"] is None
    assert len(report["first_token"]) == 1


@pytest.mark.parametrize("path", ["/activity", "/activity/history"])
async def test_activity_needs_the_key(path: str) -> None:
    async with in_memory(app_of(ScriptedEngine([])), {"x-api-key": "wrong"}) as client:
        assert (await client.get(path)).status_code == 401


async def test_diverging_prompt_is_in_the_history() -> None:
    tools = [{"name": "Read", "input_schema": {}}]
    async with in_memory(app_of(ScriptedEngine([says("ok")]))) as client:
        for text in ("one", "another"):
            call = CALL | {"messages": [{"role": "user", "content": text}], "tools": tools}
            await client.post("/v1/messages", json=call, headers=CLAUDE)
        second, first = (await history(client))["recent"]
    assert first["diverged_at"] is None
    assert second["diverged_at"] > 0
    assert first["session"] == second["session"] != "the session"


@pytest.mark.parametrize(
    ("path", "call", "is_streamed"),
    [
        ("/v1/messages", CALL, False),
        ("/v1/messages", CALL, True),
        ("/v1/chat/completions", CALL, True),
        ("/v1/responses", {"model": "m", "input": "hello", "store": False}, False),
        ("/v1/completions", {"model": "m", "prompt": "hello", "max_tokens": 50}, False),
    ],
)
async def test_content_is_shown_where_the_user_wants_it(
    path: str, call: dict[str, Any], is_streamed: bool
) -> None:
    settings = replace(SETTINGS, show_content=True)
    app = app_of(ScriptedEngine([says("Hi there")]), settings=settings)
    async with in_memory(app) as client:
        await client.post(path, json=call | {"stream": is_streamed})
        (request,) = (await history(client))["recent"]
        assert (await client.get("/health")).json()["shows_content"] is True
    assert request["content"] == {"prompt": "hello", "answer": "Hi there"}


async def test_shown_content_is_the_last_text_of_the_user_and_shortened() -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "result"}
    use = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}
    turns = [
        {"role": "user", "content": "x" * 1000},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    settings = replace(SETTINGS, show_content=True)
    app = app_of(ScriptedEngine([says("y" * 1000)]), settings=settings)
    async with in_memory(app) as client:
        await client.post("/v1/messages", json=CALL | {"messages": turns, "max_tokens": 2000})
        (request,) = (await history(client))["recent"]
    assert request["content"] == {"prompt": "x" * 500 + "…", "answer": "y" * 500 + "…"}


async def test_findings_are_looked_for_when_asked_and_once_a_minute() -> None:
    now, found = [0.0], []

    def find() -> list[dict[str, str]]:
        found.append(now[0])
        return [{"title": str(now[0])}]

    cache = FindingsCache(find, lambda: now[0])
    assert found == []
    for now[0] in (0.0, 30.0, 59.0, 61.0, 90.0):
        latest = await cache.latest()
    assert (found, latest) == ([0.0, 61.0], [{"title": "61.0"}])


async def test_failing_check_leaves_the_history(caplog: pytest.LogCaptureFixture) -> None:
    def find() -> list[dict[str, str]]:
        raise OSError("/a/path")

    assert await FindingsCache(find).latest() == ()
    assert "checking this machine failed: OSError" in caplog.text


async def test_history_has_findings_and_the_end_of_the_log(tmp_path: Path) -> None:
    finding = {"severity": "warning", "title": "model", "explanation": "It…", "fix": ""}
    log = tmp_path / "server.log"
    log.write_text("2026-01-31T10:20:30Z INFO one\nsomething else\n" * 200)
    parts = AppParts(find=lambda: [finding], log=log)
    async with in_memory(app_of(ScriptedEngine([]), parts=parts)) as client:
        report = await history(client)
    assert report["findings"] == [finding]
    assert report["log"] == ["2026-01-31T10:20:30Z INFO one"] * 100


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ("a1-B2_c3.d4:e/f+g=", "a1-B2_c3.d4:e/f+g="),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("with blank", None),
        ('quo"te', None),
        ("é", None),
        ("", None),
    ],
)
async def test_id_of_a_client_is_echoed_and_logged_beside_ours_if_it_is_safe(
    sent: str, echoed: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pensieve.server")
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        headers = {"x-request-id": sent.encode("latin-1")}
        response = await client.post("/v1/messages", json=CALL, headers=headers)
    own = response.headers["request-id"]
    assert own.startswith("req_01")
    assert response.headers["x-request-id"] == (echoed or own)
    line = caplog.messages[-1]
    assert line.endswith(f", x-request-id {echoed}") if echoed else "x-request-id" not in line
    assert caplog.records[-1].msg.fields["client_request_id"] == echoed


async def test_warning_in_mid_request_names_the_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.setFormatter(OneLine())
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        response = await client.post("/v1/messages", json=CALL | {"tools": tools})
    assert f" WARNING {response.headers['request-id']} ignoring tools" in caplog.text
