"""Paths of wrong base URLs are served if unambiguous; otherwise the error names the right one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.server.routing import normalize_path
from tests.server.serving import CALL, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("sent", "normalized"),
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
        ("/chat/completions", "/v1/chat/completions"),
        ("//chat/completions/", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/models//Users/me/model", "/v1/models//Users/me/model"),
        ("/chat", "/v1/chat"),
        ("/messages", "/messages"),
        ("/chats/completions", "/chats/completions"),
    ],
)
def test_path_is_normalized(sent: str, normalized: str) -> None:
    assert normalize_path(sent) == normalized


@given(
    st.lists(st.sampled_from(["/", "v1", "messages", "models", "chat", "x", "%2F", "."])).map(
        "".join
    )
)
def test_normalization_is_idempotent(path: str) -> None:
    once = normalize_path("/" + path)
    assert once.startswith("/")
    assert normalize_path(once) == once


@pytest.mark.parametrize("path", ["/v1/v1/messages", "//v1/messages", "/v1/messages/"])
async def test_message_is_answered_under_redundant_base_url(path: str) -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        response = await client.post(f"http://localhost:7777{path}", json=CALL)
    assert (response.status_code, response.json()["content"][0]["text"]) == (200, "Hi")


@pytest.mark.parametrize(
    "path",
    [
        *["/v1/chat/completions", "/chat/completions", "/v1/v1/chat/completions/"],
        *["//chat/completions", "/chat/completions/"],
    ],
)
async def test_chat_is_answered_under_any_base_url(path: str) -> None:
    async with in_memory(app_of(ScriptedEngine([says("Hi")]))) as client:
        response = await client.post(f"http://localhost:7777{path}", json=CALL)
    answer = response.json()["choices"][0]["message"]["content"]
    assert (response.status_code, answer) == (200, "Hi")


@pytest.mark.parametrize(
    ("path", "is_openai"),
    [
        *[("/v1/responses/a/b", True), ("/v1/moderations", True), ("/v1/chat/completions/x", True)],
        *[("/v1/audio/speech", True), ("/openai/deployments/x/chat/completions", True)],
        *[("/v1/batches", True), ("/v1/containers/x", True), ("/v1/threads/x/messages", True)],
        *[("/v1/messages/x", False), ("/v1/messages/batches/x/y", False), ("/messages", False)],
        # Neither API's: all but Anthropic's clients read the errors of OpenAI's.
        *[("/nowhere", True), ("/v1", True), ("/v1/", True), ("/v1/rerank", True)],
        *[("/v1/Chat/Completions", True), ("/api/tags", True), ("/api/chat", True)],
        ("/v1/responses/compact", True),
    ],
)
async def test_unknown_path_has_the_errors_of_its_api(path: str, is_openai: bool) -> None:
    async with in_memory(app_of(ScriptedEngine([]))) as client:
        responses = [
            await client.post(path, json=CALL),
            await client.post(path, json=CALL, headers={"x-api-key": "wrong"}),
        ]
        named = await client.post(path, json=CALL, headers={"anthropic-version": "2023-06-01"})
    assert [response.status_code for response in responses] == [404, 401]
    for response in responses:
        assert ("param" in response.json()["error"]) == is_openai
        assert ("request_id" in response.json()) == (not is_openai)
    assert ("param" in named.json()["error"]) == (path == "/v1/responses/compact")


async def test_websocket_is_not_found() -> None:
    headers = {"connection": "upgrade", "upgrade": "websocket"}
    async with in_memory(app_of(ScriptedEngine([]))) as client:
        response = await client.get("/v1/responses", headers=headers)
        plain = await client.get("/v1/responses")
    assert (response.status_code, plain.status_code) == (404, 405)
    assert response.json()["error"]["message"].startswith("There are no websockets here")
    assert ["allow" in each.headers for each in (response, plain)] == [False, True]


@pytest.mark.parametrize("path", ["/v1/v1/messages", "//v1/messages", "/health/", "//health"])
async def test_path_variants_do_not_bypass_access_checks(path: str) -> None:
    async with in_memory(app_of(ScriptedEngine([])), {"x-api-key": "wrong"}) as client:
        assert (await client.get(f"http://localhost:7777{path}")).status_code == 401


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/messages", "It is at /v1/messages here: the base URL for clients is http"),
        ("/anthropic/v1/messages", "It is at /v1/messages here"),
        ("/api/models/x", "It is at /v1/models here"),
        ("/openai/v1/chat/completions", "Of OpenAI's API this server has /v1/chat/completions"),
        ("/v1/moderations", "Of OpenAI's API this server has /v1/chat/completions"),
        ("/v1/audio/speech", "the base URL is http://localhost:7777/v1."),
        ("/nowhere", ""),
    ],
)
async def test_unknown_path_error_names_the_right_one(path: str, hint: str) -> None:
    async with in_memory(app_of(ScriptedEngine([]))) as client:
        response = await client.post(path, json=CALL)
    message = response.json()["error"]["message"]
    assert response.status_code == 404
    assert message.startswith("The requested resource could not be found.")
    assert hint in message
    assert hint or message.endswith("found.")
