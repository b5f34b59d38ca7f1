"""Refuse unsupported content with the error texts that clients recover from."""

from typing import Any

import pytest

from pensieve.api.messages.request import MessagesRequest, decode
from pensieve.errors import InvalidRequestError
from pensieve.prompt.conversation.content_support import (
    check_content_supported,
    check_generation_supported,
)

HELLO = {"role": "user", "content": "hello"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
TEXT = {"type": "text", "text": "look"}
TOOL = {"name": "x", "input_schema": {}}
NO_IMAGE = "Could not process image: model 'm' does not support image input"
NO_PDF = "Could not process document: model 'm' does not support PDF input"


def request(*messages: dict[str, Any], **fields: Any) -> MessagesRequest:
    body = {"model": "m", "messages": messages or [HELLO], "max_tokens": 5}
    return decode(MessagesRequest, body | fields)


def unreadable(*messages: dict[str, Any], **fields: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        check_content_supported(request(*messages, **fields))
    return caught.value.message


def pdf(source: str) -> dict[str, Any]:
    return {"type": "document", "source": {"type": source}}


def test_image_is_refused_with_its_path_in_the_request() -> None:
    note = {"role": "system", "content": "the date changed"}
    message = {"role": "user", "content": [TEXT, IMAGE]}
    assert unreadable(HELLO, note, message) == f"messages.2.content.1.image: {NO_IMAGE}"


def test_image_in_a_tool_result_is_refused_with_its_path() -> None:
    result = {"type": "tool_result", "tool_use_id": "a", "content": [TEXT, IMAGE]}
    message = {"role": "user", "content": [TEXT, result]}
    expected = f"messages.0.content.1.tool_result.content.1.image: {NO_IMAGE}"
    assert unreadable(message) == expected


@pytest.mark.parametrize("source", ["base64", "url"])
def test_binary_document_is_refused_at_any_position(source: str) -> None:
    message = {"role": "user", "content": [pdf(source)]}
    assert unreadable(message) == f"messages.0.content.0.document: {NO_PDF}"
    result = {"type": "tool_result", "tool_use_id": "a", "content": [pdf(source)]}
    assert unreadable({"role": "user", "content": [result]}) == (
        f"messages.0.content.0.tool_result.content.0.document: {NO_PDF}"
    )


def test_image_inside_a_document_is_refused() -> None:
    mixed = {"type": "document", "source": {"type": "content", "content": [TEXT, IMAGE]}}
    assert unreadable({"role": "user", "content": [mixed]}) == (
        f"messages.0.content.0.document.source.content.1.image: {NO_IMAGE}"
    )


@pytest.mark.parametrize("content", ["", [], [{"type": "text", "text": ""}]])
def test_empty_user_turn_is_refused(content: object) -> None:
    assert unreadable(HELLO, {"role": "user", "content": content}) == (
        "messages.1: all messages must have non-empty content"
        " except for the optional final assistant message"
    )


def test_empty_assistant_turn_is_accepted() -> None:
    check_content_supported(request(HELLO, {"role": "assistant", "content": []}, HELLO))


def test_computer_use_tools_are_refused_with_their_path() -> None:
    screen = {"type": "computer_20251124", "name": "computer", "display_width_px": 1}
    assert unreadable(tools=[TOOL, screen]) == (
        "tools.1: 'computer_20251124' is not supported by this model: it needs image input"
    )


def test_mcp_servers_are_refused() -> None:
    server = {"type": "url", "name": "s", "url": "https://mcp.test"}
    assert unreadable(mcp_servers=[server]).startswith("mcp_servers: ")
    check_content_supported(request(mcp_servers=[]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {
                "output_config": {"format": {"type": "json_schema", "schema": {}}},
                "messages": [HELLO, {"role": "assistant", "content": "{"}],
            },
            "output_config.format: Prefilling assistant messages is not supported with"
            " structured output",
        ),
        ({"compaction": {"type": "summarize"}}, "compaction: Extra inputs are not permitted"),
        (
            {
                "tools": [{"type": "web_search_20250305", "name": "web_search"}],
                "tool_choice": {"type": "any"},
            },
            "tool_choice: 'any' cannot be honoured: all tools are the hosted API's, and none of"
            " them can be run here",
        ),
        (
            {
                "tools": [{"type": "web_search_20250305", "name": "web_search"}],
                "tool_choice": {"type": "tool", "name": "web_search"},
            },
            "tool_choice.name: 'web_search' is a tool of the hosted API and cannot be run here",
        ),
    ],
)
def test_unsupported_kind_of_answer_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_generation_supported(request(**fields))
    assert caught.value.message == message


@pytest.mark.parametrize(
    "fields",
    [
        {"output_config": {"effort": "high", "format": None}},
        {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
        {"tools": [TOOL], "tool_choice": {"type": "any"}},
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}},
        {"output_config": {"task_budget": {"type": "tokens", "total": 9}}},
        {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {"tools": [TOOL], "tool_choice": {"type": "none"}},
        {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}]},
        {"tools": [{"type": "bash_20250124", "name": "bash"}]},
        {"thinking": {"type": "adaptive", "display": "omitted"}},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
    ],
)
def test_fields_without_effect_are_accepted(fields: dict[str, Any]) -> None:
    check_content_supported(request(**fields))
    check_generation_supported(request(**fields))
