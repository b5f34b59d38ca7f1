"""Nearly valid bodies of OpenAI's API are answered or refused in its envelope, and quickly."""

from typing import Any

import httpx
from hypothesis import example, given

from tests.fuzz.examples import max_examples
from tests.fuzz.mutations import bodies_of
from tests.fuzz.test_bodies import BlockingClient
from tests.fuzz.test_bodies import client as client  # noqa: PLC0414 -- a fixture
from tests.server.openai.calls import chunks_of
from tests.server.serving import stream_events

ENDS = {"response.completed", "response.incomplete"}
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
    CALL | {"logit_bias": {"5": 1}, "n": 2, "presence_penalty": 1, "stream": True},
    CALL | {"logprobs": True, "top_logprobs": 2, "frequency_penalty": -1.5},
    CALL | {"logit_bias": {}, "n": 1, "chat_template_kwargs": {"enable_thinking": False}},
    CALL | {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {
        "url": "http://169.254.169.254/latest"}}]}]},
]  # fmt: skip
TEXTS: list[dict[str, Any]] = [
    {"model": "m", "prompt": "def f(", "max_tokens": 5, "stop": "\n"},
    {"model": "m", "prompt": ["def f("], "stream": True, "temperature": 0, "best_of": 1},
    {"model": "m", "prompt": "x", "logprobs": 2, "n": 2, "best_of": 2, "logit_bias": {"5": -1}},
    {"model": "m", "prompt": "def f(", "suffix": "return x"},
]
FLAT: dict[str, Any] = {"type": "function", "name": "get_weather", "parameters": PLACE}
LARK = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
MADE = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"}
SHOWN = {"type": "input_text", "text": "cold"}
RESPOND: dict[str, Any] = {"model": "m", "max_output_tokens": 20, "input": "hello", "store": False}
RESPONSES: list[dict[str, Any]] = [
    RESPOND,
    RESPOND | {"stream": True, "instructions": "Be kind.", "metadata": {"a": "b"}, "stop": ["END"]},
    RESPOND | {"input": [{"role": "developer", "content": [SHOWN]}, USER], "temperature": 0.5},
    RESPOND | {"tools": [FLAT, {"type": "custom", "name": "patch", "format": LARK}, {
        "type": "namespace", "name": "mcp__x", "description": "x", "tools": [FLAT]}],
        "tool_choice": {"type": "function", "name": "get_weather", "namespace": "mcp__x"}},
    RESPOND | {"tools": [FLAT], "tool_choice": {"type": "allowed_tools", "mode": "required",
        "tools": [{"type": "function", "name": "get_weather"}]}, "parallel_tool_calls": False},
    RESPOND | {"tools": [FLAT, {"type": "web_search"}], "input": [
        USER,
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "pensieve1.name.eJzzyNVRqEwt1gMACxICgQ=="},
        MADE,
        {"type": "function_call_output", "call_id": "call_1", "output": [SHOWN]},
        {"type": "custom_tool_call", "call_id": "call_2", "name": "patch", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "done"},
        {"type": "local_shell_call", "call_id": "call_3", "action": {"command": ["ls"]}},
        {"type": "web_search_call", "id": "ws_1", "action": {"query": "x"}},
        {"type": "additional_tools", "role": "developer", "tools": [FLAT | {"name": "late"}]},
    ]},
    RESPOND | {"text": {"format": {"type": "json_schema", "name": "x", "schema": PLACE,
        "strict": True}}, "include": ["reasoning.encrypted_content"]},
    RESPOND | {"text": {"format": {"type": "json_object"}}, "reasoning": {"effort": "low"}},
    RESPOND | {"input": [{"type": "item_reference", "id": "rs_1"}], "background": False},
]  # fmt: skip


def assert_answered(response: httpx.Response, *statuses: int) -> None:
    """statuses: those of refusals, next to 400."""
    assert response.headers["x-request-id"].startswith("req_")
    if response.status_code != 200:
        error = response.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert response.status_code in {400, *statuses}
        assert error["type"] == "invalid_request_error"
        assert error["message"]
    elif response.headers["content-type"].startswith("text/event-stream"):
        assert all("choices" in chunk for chunk in chunks_of(response.text))
    else:
        assert response.json()["choices"]


def assert_responded(response: httpx.Response) -> None:
    if response.status_code != 200:
        assert_answered(response, 404)  # an item that is not stored
    elif response.headers["content-type"].startswith("text/event-stream"):
        assert stream_events(response.text)[-1]["type"] in ENDS
    else:
        assert f"response.{response.json()['status']}" in ENDS


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


@max_examples(250)
@given(body=bodies_of(RESPONSES))
@example(body=b'{"input": ' + b'[{"role": "user"},' * 100_000)
def test_a_nearly_valid_response_is_answered_or_refused(
    body: bytes, client: BlockingClient
) -> None:
    assert_responded(client.post("/v1/responses", body))
