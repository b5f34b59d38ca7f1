"""Content blocks: every kind of the API is accepted, also those that only the hosted API writes."""

import pytest

from pensieve.api.messages.content_blocks import (
    CacheControl,
    CompactionBlock,
    DocumentBlock,
    TextBlock,
    TextSource,
    ToolResultBlock,
    ToolUseBlock,
)
from pensieve.api.messages.request import Turn, decode
from pensieve.errors import InvalidRequestError

WEB_RESULT = {"type": "web_search_result", "title": "T", "url": "u", "encrypted_content": "e"}

KNOWN = [
    {"type": "text", "text": "", "citations": None},
    {"type": "text", "text": "x", "citations": [{"type": "char_location"}]},
    {"type": "image", "source": {"type": "url", "url": "u"}},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}},
    {
        "type": "document",
        "source": {"type": "file", "file_id": "f"},
        "citations": {"enabled": True},
    },
    {"type": "document", "source": {"type": "content", "content": "text"}},
    {
        "type": "search_result",
        "source": "s",
        "title": "t",
        "content": [{"type": "text", "text": "x"}],
    },
    {"type": "thinking", "thinking": "hm", "signature": "of another server"},
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "redacted_thinking", "data": "xyz"},
    {"type": "tool_use", "id": "call_abc", "name": "t", "input": {}, "caller": {"type": "direct"}},
    {"type": "tool_result", "tool_use_id": "5f6e-uuid"},
    {"type": "tool_result", "tool_use_id": "a", "content": None, "is_error": None},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [WEB_RESULT]},
    {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_1", "content": {"url": "u"}},
    {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {}},
    {"type": "bash_code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {}},
    {"type": "text_editor_code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {}},
    {"type": "tool_search_tool_result", "tool_use_id": "srvtoolu_1", "content": {}},
    {"type": "mcp_tool_use", "id": "m", "name": "n", "server_name": "s", "input": {}},
    {"type": "mcp_tool_result", "tool_use_id": "m", "content": "x", "is_error": False},
    {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": []},
    {"type": "advisor_tool_result", "tool_use_id": "a", "content": {}},
    {"type": "container_upload", "file_id": "f"},
    {"type": "compaction", "content": None},
    {"type": "compaction", "content": "before that", "encrypted_content": "e", "signature": "s"},
    {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "t"}},
    {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "t"}},
    {"type": "fallback", "from": {}, "to": {}},
]


def turn(*blocks: object, role: str = "user", **fields: object) -> Turn:
    return decode(Turn, {"role": role, "content": blocks, **fields})


@pytest.mark.parametrize("block", KNOWN, ids=lambda block: block["type"])
def test_every_known_block_is_accepted_with_and_without_a_cache_breakpoint(
    block: dict[str, object],
) -> None:
    marked = block | {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    plain, cached = turn(block, marked).content
    assert plain.type == block["type"]
    assert plain.cache_control is None
    assert cached.cache_control == CacheControl(type="ephemeral", ttl="1h")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "x"},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
        {"type": "search_result", "source": "s", "title": "t", "content": []},
        {"type": "tool_reference", "tool_name": "t"},
        {"type": "browser_state", "tabs": []},
    ],
    ids=lambda part: part["type"],
)
def test_a_tool_result_accepts_every_kind_of_part(part: dict[str, object]) -> None:
    (block,) = turn({"type": "tool_result", "tool_use_id": "a", "content": [part]}).content
    assert isinstance(block, ToolResultBlock)
    assert block.content[0].type == part["type"]


def test_string_content_becomes_one_text_block_everywhere() -> None:
    result, document = turn(
        {"type": "tool_result", "tool_use_id": "a", "content": "x"},
        {"type": "document", "source": {"type": "content", "content": "x"}},
    ).content
    text = (TextBlock(type="text", text="x"),)
    assert isinstance(result, ToolResultBlock)
    assert isinstance(document, DocumentBlock)
    assert result.content == text
    assert not isinstance(document.source, TextSource)


def test_a_tool_input_keeps_its_key_order_and_values() -> None:
    given = {"z": 1, "a": [True, None, 2.5, "x"], "\u2028": {"deep": {}}}
    (block,) = turn({"type": "tool_use", "id": "a", "name": "t", "input": given}).content
    assert isinstance(block, ToolUseBlock)
    assert block.input == given
    assert list(block.input) == list(given)


def test_a_failed_compaction_has_no_content() -> None:
    (block,) = turn({"type": "compaction", "content": None}).content
    assert isinstance(block, CompactionBlock)
    assert block.content is None


def test_only_a_system_turn_may_have_an_output_config_without_content() -> None:
    settings = {"role": "system", "output_config": {"effort": "low"}}
    assert decode(Turn, settings).content == ()
    with pytest.raises(InvalidRequestError, match=r"^content: Field required$"):
        decode(Turn, {"role": "system"})
    with pytest.raises(InvalidRequestError, match=r"^content: Field required$"):
        decode(Turn, settings | {"role": "user"})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"type": "tool_use", "name": "t", "input": {}}, "content.0.tool_use.id: Field required"),
        (
            {"type": "tool_use", "id": "a", "name": "t", "input": "{}"},
            "content.0.tool_use.input: Input should be a valid dictionary",
        ),
        (
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "thinking"}]},
            "content.0.tool_result.content.0: Input tag 'thinking' found using 'type' does not"
            " match any of the expected tags: 'text', 'image', 'search_result', 'document',"
            " 'tool_reference', 'browser_state'",
        ),
        ({"type": "document"}, "content.0.document.source: Field required"),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}},
            "content.0.document.source.base64.data: Field required",
        ),
        (
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "image/png", "data": ""},
            },
            "content.0.document.source.base64.media_type: Input should be 'application/pdf'",
        ),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/tiff", "data": ""}},
            "content.0.image.source.base64.media_type: Input should be 'image/jpeg', 'image/png',"
            " 'image/gif' or 'image/webp'",
        ),
        (
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "2h"}},
            "content.0.text.cache_control.ttl: Input should be '5m' or '1h'",
        ),
        ("text", "content.0: Input should be an object"),
    ],
)
def test_a_malformed_block_is_refused_with_its_path(block: object, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        turn(block)
    assert caught.value.message == message
