"""Prompts that do not extend their session's last one are logged and counted, per agent."""

import logging
from typing import Any

import httpx
import pytest

from tests.server.serving import CALL, KEY, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio
TOOLS = [{"name": "Read", "input_schema": {}}]


def turn(*texts: str, **fields: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
    return CALL | {"messages": messages, "tools": TOOLS, "system": "Be brief."} | fields


async def ask(client: httpx.AsyncClient, call: dict[str, Any], **headers: str) -> None:
    named = {f"x-claude-code-{name}-id": value for name, value in headers.items()}
    response = await client.post("/v1/messages", json=call, headers={"x-api-key": KEY, **named})
    assert response.status_code == 200


async def diverged(client: httpx.AsyncClient) -> int:
    return (await client.get("/health")).json()["diverged_prompts"]


async def test_diverging_prompt_is_logged_with_token_and_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pensieve.server")
    async with in_memory(app_of(ScriptedEngine([says("ok")]))) as client:
        await ask(client, turn("one"), session="s")
        await ask(client, turn("one", "ok", "two"), session="s")
        assert await diverged(client) == 0
        await ask(client, turn("another", "ok", "two"), session="s")
        assert await diverged(client) == 1
    (line,) = [text for text in caplog.messages if "diverged" in text]
    assert line.startswith("prompt diverged from the session's last one at token ")
    assert line.endswith(", in messages.0.content.0")


async def test_sessions_agents_and_titles_are_distinguished() -> None:
    async with in_memory(app_of(ScriptedEngine([says("ok")]))) as client:
        await ask(client, turn("one"), session="s")
        await ask(client, turn("a title", tools=[]), session="s")
        await ask(client, turn("look around"), session="s", agent="a")
        await ask(client, turn("something else"), session="t")
        await ask(client, turn("whatever"))
        await ask(client, turn("anything"))
        await ask(client, turn("one", "ok", "two"), session="s")
        await ask(client, turn("look around", "ok", "more"), session="s", agent="a")
        assert await diverged(client) == 0


async def test_stored_prompts_are_bounded() -> None:
    from pensieve.api.messages.request import Conversation, decode
    from pensieve.prompt.render import PromptRenderer
    from pensieve.server.messages.sessions import Session, Sessions
    from tests.support.fakes import ByteTokenizer

    tokenizer = ByteTokenizer()
    renderer = PromptRenderer(tokenizer)
    sessions = Sessions(tokenizer.neutralize, max_chars=1000)

    def note(session: str, text: str) -> None:
        fields = {"model": "m", "messages": [{"role": "user", "content": text}]}
        call = decode(Conversation, fields)
        sessions.note(Session(session, ""), call, renderer.render(call))

    note("first", "a" * 400)
    note("second", "b" * 400)
    note("third", "c" * 400)
    note("first", "d" * 400)  # evicted by now
    assert sessions.diverged == 0
    note("third", "e" * 400)
    assert sessions.diverged == 1
