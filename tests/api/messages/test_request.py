"""Bodies of requests: which are accepted, and with which messages the others are refused."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.messages.content_blocks import TextBlock
from pensieve.api.messages.request import MAX_MESSAGES, CountTokensRequest, MessagesRequest, parse
from pensieve.errors import InvalidRequestError, RequestTooLargeError

HELLO = [{"role": "user", "content": "hello"}]
VALID = {"model": "m", "max_tokens": 5, "messages": HELLO}


def parsed(**changes: object) -> MessagesRequest:
    return parse(MessagesRequest, json.dumps(VALID | changes).encode())


def refusal(body: bytes) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        parse(MessagesRequest, body)
    return caught.value.message


def refusal_of(**changes: object) -> str:
    fields = {name: value for name, value in (VALID | changes).items() if value is not ...}
    return refusal(json.dumps(fields).encode())


def test_a_string_and_one_text_block_are_the_same_content() -> None:
    blocks = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    assert parsed().messages == parsed(messages=blocks).messages
    assert parsed(system="s").system == (TextBlock(type="text", text="s"),)


FILE = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
SOURCE = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
PDF = {"type": "document", "source": SOURCE}
TEXT = {"type": "document", "source": {"type": "text", "data": "file"}}


@pytest.mark.parametrize(
    ("block", "is_unread"),
    [
        (FILE, True),
        (PDF, True),
        ({"type": "tool_result", "tool_use_id": "t", "content": [TEXT, PDF]}, True),
        ({"type": "tool_result", "tool_use_id": "t", "content": [TEXT, FILE]}, True),
        (TEXT, False),
        ({"type": "tool_result", "tool_use_id": "t", "content": [TEXT]}, False),
    ],
)
def test_a_call_has_unread_documents_if_there_is_one_at_any_depth(
    block: dict[str, object], is_unread: bool
) -> None:
    turns = [*HELLO, {"role": "user", "content": [block]}]
    assert parsed(messages=turns).has_unread_documents == is_unread


def test_a_call_declares_tools_in_its_own_field_or_in_a_turn() -> None:
    tool = {"name": "a", "input_schema": {"type": "object"}}
    addition = {"type": "tool_addition", "tool": tool}
    turns = [*HELLO, {"role": "system", "content": [addition]}]
    assert parsed(tools=[tool]).declares_tools
    assert parsed(messages=turns).declares_tools
    assert not parsed().declares_tools


def test_omitted_fields_have_anthropics_defaults() -> None:
    call = parsed()
    assert not call.stream
    assert call.stop_sequences == ()


def test_omitted_sampling_differs_from_explicit_sampling() -> None:
    left_out, given = parsed(), parsed(temperature=1, top_p=1, top_k=0)
    assert (left_out.temperature, left_out.top_p, left_out.top_k) == (None, None, None)
    assert (given.temperature, given.top_p, given.top_k) == (1.0, 1.0, 0)


def test_an_optional_null_is_absent() -> None:
    assert parsed(system=None, stop_sequences=None, temperature=None, thread=None) == parsed()


def test_unknown_fields_are_ignored() -> None:
    extra = {
        "metadata": {"user_id": "x" * 999},
        "service_tier": "auto",
        "container": {"id": "c", "skills": []},
        "diagnostics": {"previous_message_id": "msg_1"},
        "inference_geo": "us",
        "speed": "fast",
        "fallbacks": "default",
        "safeguards": {"rules": [1]},
        "new_in_2027": [1],
    }
    assert parsed(**extra) == parsed()


def test_count_tokens_needs_no_max_tokens() -> None:
    body = json.dumps({"model": "m", "messages": HELLO, "max_tokens": "?", "stream": 7})
    assert parse(CountTokensRequest, body.encode()).model == "m"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": ...}, "max_tokens: Field required"),
        ({"messages": ...}, "messages: Field required"),
        ({"model": ...}, "model: Field required"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": "x"}, "messages: Input should be a valid list"),
        ({"messages": ["x"]}, "messages.0: Input should be an object"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages.0.role: Input should be 'user', 'assistant' or 'system'",
        ),
        (
            {"messages": [{"role": "user", "content": 7}]},
            "messages.0.content: Input should be a valid list",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text.text: Field required",
        ),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages.0.content.0.type: Field required",
        ),
        (
            {"messages": [*HELLO, {"role": "user", "content": [{"type": "foo"}]}]},
            "messages.1.content.0: Input tag 'foo' found using 'type' does not match any of the"
            " expected tags: 'text', 'image', 'document', 'search_result', 'thinking', 'tool_use',"
            " 'tool_result', 'server_tool_use', 'web_search_tool_result', 'web_fetch_tool_result',"
            " 'code_execution_tool_result', 'bash_code_execution_tool_result',"
            " 'text_editor_code_execution_tool_result', 'tool_search_tool_result', 'mcp_tool_use',"
            " 'mcp_tool_result', 'container_upload', 'compaction', 'tool_addition', 'tool_removal',"
            " 'redacted_thinking', 'advisor_tool_result', 'mcp_tool_listing', 'fallback'",
        ),
        ({"system": [{"type": "image"}]}, "system.0.type: Input should be 'text'"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
        ({"max_tokens": "5"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 2**63}, f"max_tokens: Input should be less than or equal to {2**63 - 1}"),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        ({"temperature": 2.1}, "temperature: Input should be less than or equal to 2"),
        ({"top_p": -1}, "top_p: Input should be greater than or equal to 0"),
        ({"top_k": -1}, "top_k: Input should be greater than or equal to 0"),
        (
            {"stop_sequences": ["ok", " \n"]},
            "stop_sequences.1: each stop sequence must contain non-whitespace",
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1023}},
            "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
        ),
        (
            {"thinking": {"type": "hard"}},
            "thinking: Input tag 'hard' found using 'type' does not match any of the expected tags:"
            " 'enabled', 'adaptive', 'disabled', 'between_tools'",
        ),
        ({"cache_control": {"type": "forever"}}, "cache_control.type: Input should be 'ephemeral'"),
        ({"thread": {"type": "continue"}}, "thread.continue.previous_message_id: Field required"),
        (
            {"thread": {"type": "fork"}},
            "thread: Input tag 'fork' found using 'type' does not match any of the expected tags:"
            " 'create', 'continue'",
        ),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.tool.name: Field required"),
        (
            {"messages": HELLO * (MAX_MESSAGES + 1)},
            f"messages: List should have at most {MAX_MESSAGES} items after validation, not"
            f" {MAX_MESSAGES + 1}",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_an_invalid_request_is_refused_in_anthropics_wording(
    changes: dict[str, object], message: str
) -> None:
    assert refusal_of(**changes) == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xef\xbb\xbf{}",
        b'{"model": "\xff"}',
        b'{"model": NaN}',
        b'{"temperature": -Infinity}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"system":' * 5000,
    ],
)
def test_invalid_json_is_refused_as_invalid_json(body: bytes) -> None:
    assert refusal(body).startswith("The request body is not valid JSON: ")


@pytest.mark.parametrize("body", [b"[]", b"7", b"null", b'"text"'])
def test_a_body_that_is_not_an_object_is_refused(body: bytes) -> None:
    assert refusal(body) == "Input should be an object"


def test_a_body_over_the_limit_is_refused_before_parsing() -> None:
    with pytest.raises(RequestTooLargeError):
        parse(MessagesRequest, b" " * (32 * 1024 * 1024 + 1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
names = st.sampled_from([*MessagesRequest.model_fields, "unknown"])


@given(st.dictionaries(names, json_values))
def test_any_field_values_are_accepted_or_refused(changes: dict[str, object]) -> None:
    body = json.dumps(VALID | changes).encode()
    with suppress(InvalidRequestError):
        assert parse(MessagesRequest, body).messages


@given(st.integers(0, 200), st.binary(max_size=4))
def test_a_damaged_body_is_accepted_or_refused(index: int, damage: bytes) -> None:
    body = json.dumps(VALID).encode()
    with suppress(InvalidRequestError):
        assert parse(MessagesRequest, body[:index] + damage + body[index + 2 :]).messages
