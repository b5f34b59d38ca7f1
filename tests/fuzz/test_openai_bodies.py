"""Nearly valid bodies of OpenAI's API are answered or refused in its envelope, and quickly."""

from typing import Any

import httpx
from hypothesis import example, given

from tests.fuzz.examples import max_examples
from tests.fuzz.mutations import bodies_of
from tests.fuzz.test_bodies import BlockingClient
from tests.fuzz.test_bodies import client as client  # noqa: PLC0414 -- a fixture
from tests.server.openai.calls import chunks_of

USER = {"role": "user", "content": "hello"}
PLACE = {"type": "object", "properties": {"place": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PLACE}}
PATCH = {"type": "custom", "custom": {"name": "patch", "format": {"type": "text"}}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
USE = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"place": "Oslo"}'},
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "cold"}]}
CALL: dict[str, Any] = {"model": "m", "max_tokens": 20, "messages": [USER]}
CHATS: list[dict[str, Any]] = [
    CALL,
    CALL | {"stream": True, "stream_options": {"include_usage": True}, "stop": ["END"], "seed": 5},
    CALL | {"messages": [{"role": "developer", "content": "Be kind."}, USER], "temperature": 0.5},
    CALL | {"tools": [TOOL, PATCH, {"type": "web_search"}], "tool_choice": NAMED},
    CALL | {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {
        "mode": "required", "tools": [NAMED]}}, "parallel_tool_calls": False},
    CALL | {"tools": [TOOL], "messages": [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [USE], "reasoning_content": "hm"},
        RESULT,
        USER,
    ]},
    CALL | {"response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "schema": PLACE, "strict": True}}},
    CALL | {"response_format": {"type": "json_object"}, "reasoning_effort": "low"},
    CALL | {"reasoning": {"effort": "high", "max_tokens": 2000, "exclude": True}},
    CALL | {"logit_bias": {}, "n": 1, "chat_template_kwargs": {"enable_thinking": False}},
    CALL | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {
        "url": "http://169.254.169.254/latest"}}]}]},
]  # fmt: skip
TEXTS: list[dict[str, Any]] = [
    {"model": "m", "prompt": "def f(", "max_tokens": 5, "stop": "\n"},
    {"model": "m", "prompt": ["def f("], "stream": True, "temperature": 0, "best_of": 1},
    {"model": "m", "prompt": "def f(", "suffix": "return x"},
]


def assert_answered(response: httpx.Response) -> None:
    assert response.headers["x-request-id"].startswith("req_")
    if response.status_code != 200:
        error = response.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert (response.status_code, error["type"]) == (400, "invalid_request_error")
        assert error["message"]
    elif response.headers["content-type"].startswith("text/event-stream"):
        assert all("choices" in chunk for chunk in chunks_of(response.text))
    else:
        assert response.json()["choices"]


@max_examples(250)
@given(body=bodies_of(CHATS))
@example(body=b"[" * 100_000)
@example(body=b'{"messages": ' + b'[{"role": "user"},' * 100_000)
def test_a_nearly_valid_chat_is_answered_or_refused(body: bytes, client: BlockingClient) -> None:
    assert_answered(client.post("/v1/chat/completions", body))


@max_examples(100)
@given(body=bodies_of(TEXTS))
def test_a_nearly_valid_text_is_answered_or_refused(body: bytes, client: BlockingClient) -> None:
    assert_answered(client.post("/v1/completions", body))
