"""What clients make of a base URL is answered where it can only mean one thing, else told the right address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.server.middleware.base_urls import intended
from tests.fakes import ScriptedEngine, says
from tests.server.serving import CALL, app_of, in_memory

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("/v1/messages", "/v1/messages"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/v1/v1/models", "/v1/models"),
        ("//v1/messages", "/v1/messages"),
        ("/v1//v1//messages", "/v1/messages"),
        ("/v1//messages/", "/v1/messages"),
        ("/v1/messages///", "/v1/messages"),
        ("///health/", "/health"),
        ("/", "/"),
        ("//", "/"),
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/v1/v1", "/v1/v1"),
        ("/v10/messages", "/v10/messages"),
        ("/v1beta/v1/messages", "/v1beta/v1/messages"),
        ("/v1/models//Users/me/v1/v1/model", "/v1/models//Users/me/v1/v1/model"),
        ("/v1/models/v1/v1", "/v1/models/v1/v1"),
    ],
)
def test_the_intended_path(sent: str, meant: str) -> None:
    assert intended(sent) == meant


@given(st.lists(st.sampled_from(["/", "v1", "messages", "models", "x", "%2F", "."])).map("".join))
def test_a_path_is_one_after_one_look(path: str) -> None:
    once = intended("/" + path)
    assert once.startswith("/")
    assert intended(once) == once


@pytest.mark.parametrize("path", ["/v1/v1/messages", "//v1/messages", "/v1/messages/"])
async def test_a_message_is_answered_at_the_address_that_was_meant(path: str) -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        response = await client.post(f"http://localhost:7777{path}", json=CALL)
    assert (response.status_code, response.json()["content"][0]["text"]) == (200, "Hi")


@pytest.mark.parametrize("path", ["/v1/v1/messages", "//v1/messages", "/health/", "//health"])
async def test_another_way_to_write_a_path_opens_nothing(path: str) -> None:
    async with in_memory(app_of(ScriptedEngine([])), {}) as client:
        assert (await client.get(f"http://localhost:7777{path}")).status_code == 401


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/messages", "It is at /v1/messages here: the base URL for clients is http"),
        ("/anthropic/v1/messages", "It is at /v1/messages here"),
        ("/api/models/x", "It is at /v1/models here"),
        ("/v1/chat/completions", "This server speaks the Anthropic API: POST /v1/messages"),
        ("/responses", "This server speaks the Anthropic API"),
        ("/nowhere", ""),
    ],
)
async def test_another_address_is_told_the_right_one(path: str, told: str) -> None:
    async with in_memory(app_of(ScriptedEngine([]))) as client:
        response = await client.post(path, json=CALL)
    message = response.json()["error"]["message"]
    assert response.status_code == 404
    assert message.startswith("The requested resource could not be found.")
    assert told in message
    assert told or message.endswith("found.")
