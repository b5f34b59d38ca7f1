"""Checks of a whole conversation, with the messages to which clients react."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.messages.request import (
    ApiVersion,
    CountTokensRequest,
    MessagesRequest,
    api_version_of,
    decode,
)
from pensieve.errors import InvalidRequestError
from pensieve.prompt.conversation.validation import validate

HELLO = {"role": "user", "content": "hello"}
TOOL = {"name": "x", "input_schema": {}}
OLD, NEW = ApiVersion(), ApiVersion("2026-10-21")
TEXT = {"type": "text", "text": "look"}
HI = ("user", [TEXT])
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
NO_IMAGE = "Could not process image: model 'm' does not support image input"
NO_URL = "Could not process document: documents by URL are not fetched; send them as base64"


def use(name: str) -> dict[str, object]:
    return {"type": "tool_use", "id": name, "name": "t", "input": {}}


def result(name: str) -> dict[str, object]:
    return {"type": "tool_result", "tool_use_id": name, "content": "ok"}


def request(**fields: Any) -> MessagesRequest:
    return decode(
        MessagesRequest, {"model": "m", "messages": [HELLO], "max_tokens": 2000, **fields}
    )


def turns(*entries: tuple[str, list[object]]) -> MessagesRequest:
    return request(messages=[{"role": role, "content": content} for role, content in entries])


def refusal(api_version: ApiVersion = OLD, **fields: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        validate(request(**fields), api_version)
    return caught.value.message


def order_error(*entries: tuple[str, list[object]], stored_turns: int = 0) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        validate(turns(*entries), OLD, stored_turns)
    return caught.value.message


def test_a_conversation_with_all_tool_uses_answered_is_accepted() -> None:
    validate(
        turns(
            HI,
            ("assistant", [use("a"), use("b")]),
            ("user", [result("b")]),
            ("system", [{"type": "text", "text": "the date changed"}]),
            ("user", [{"type": "text", "text": "and"}, result("a")]),
            ("assistant", [use("c")]),
            ("system", [{"type": "text", "text": "hm"}]),
            ("user", [result("c")]),
        ),
        OLD,
    )


def test_a_tool_use_without_its_result_is_refused_with_its_id() -> None:
    expected = (
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: a,"
        " b. Each `tool_use` block must have a corresponding `tool_result` block in the next"
        " message."
    )
    uses = ("assistant", [use("a"), use("b"), use("c")])
    assert order_error(HI, uses, ("user", [result("c")])) == expected
    assert order_error(HI, uses, ("user", [result("c")]), ("assistant", [])) == expected
    assert order_error(HI, ("assistant", [use("a"), use("b")])) == expected


def test_a_result_without_its_tool_use_is_refused_with_its_path() -> None:
    expected = (
        "messages.2.content.1: unexpected `tool_use_id` found in `tool_result` blocks: b. Each"
        " `tool_result` block must have a corresponding `tool_use` block in the previous message."
    )
    entries = [HI, ("assistant", [use("a")]), ("user", [result("a"), result("b")])]
    assert order_error(*entries) == expected
    alone = [HI, ("system", [TEXT]), ("user", [TEXT, result("b")])]
    assert order_error(*alone) == expected


def test_a_repeated_or_late_tool_result_is_refused() -> None:
    uses = ("assistant", [use("a")])
    assert "unexpected `tool_use_id`" in order_error(uses, ("user", [result("a"), result("a")]))
    late = [uses, ("user", [result("a")]), ("assistant", []), ("user", [result("a")])]
    assert order_error(*late).startswith("messages.3.content.0: unexpected")


def test_a_repeated_tool_use_id_is_refused() -> None:
    entries = [
        ("assistant", [use("a")]),
        ("user", [result("a")]),
        ("assistant", [use("b"), use("a")]),
    ]
    assert order_error(*entries) == "messages.2.content.1: `tool_use` ids must be unique"


def test_error_paths_in_a_continued_thread_count_from_the_sent_messages() -> None:
    stored = [HI, ("assistant", [use("a")])]
    assert order_error(*stored, ("user", [result("b")]), stored_turns=2).startswith(
        "messages.0.content.0: unexp"
    )


@given(st.data())
def test_removing_any_tool_result_makes_a_conversation_invalid(
    data: st.DataObject,
) -> None:
    counts = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    ids = [[f"{turn}_{n}" for n in range(count)] for turn, count in enumerate(counts)]
    entries = [
        entry
        for group in ids
        for entry in (
            ("assistant", [use(name) for name in group]),
            ("user", [TEXT, *(result(name) for name in data.draw(st.permutations(group)))]),
        )
    ]
    validate(turns(*entries), OLD)
    index = data.draw(st.integers(0, len(ids) - 1))
    entries[2 * index + 1][1].pop()
    assert order_error(*entries).startswith(
        f"messages.{2 * index}: `tool_use` ids were found without"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
        (
            {"tools": [TOOL | {"defer_loading": True}]},
            "tools: All tools have defer_loading: true."
            " At least one must be loaded from the start.",
        ),
        (
            {"messages": [{"role": "user", "content": [use("a")]}]},
            "messages.0.content.0: `tool_use` blocks can only be in `assistant` messages",
        ),
        (
            {"messages": [HELLO, {"role": "assistant", "content": [result("a")]}]},
            "messages.1.content.0: `tool_result` blocks can only be in `user` messages",
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            "`max_tokens` must be greater than `thinking.budget_tokens`.",
        ),
        (
            {"max_tokens": 0, "stream": True},
            "max_tokens: Input should be greater than or equal to 1 when `stream` is true",
        ),
        (
            {"max_tokens": 0, "thinking": {"type": "enabled", "budget_tokens": 2000}},
            "max_tokens: Input should be greater than or equal to 1 when `thinking` is enabled",
        ),
        (
            {"max_tokens": 0, "output_config": {"format": {"type": "json_schema"}}},
            "max_tokens: Input should be greater than or equal to 1"
            " when `output_config.format` is set",
        ),
        (
            {"max_tokens": 0, "output_format": {"type": "json_schema"}},
            "max_tokens: Input should be greater than or equal to 1"
            " when `output_config.format` is set",
        ),
        (
            {"max_tokens": 0, "tools": [TOOL], "tool_choice": {"type": "any"}},
            "max_tokens: Input should be greater than or equal to 1"
            " when `tool_choice` forces a tool",
        ),
    ],
)
def test_contradictory_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    assert refusal(**fields) == message


def test_zero_max_tokens_and_every_thinking_type_are_accepted() -> None:
    validate(request(max_tokens=0), OLD)
    for kind in ("adaptive", "disabled", "between_tools"):
        validate(request(thinking={"type": kind, "display": "omitted"}), OLD)
    validate(request(thinking={"type": "enabled", "budget_tokens": 1999}), OLD)


def test_thinking_between_tools_may_exceed_the_answer() -> None:
    interleaved = ApiVersion(betas=frozenset({"interleaved-thinking-2025-05-14"}))
    long = request(tools=[TOOL], thinking={"type": "enabled", "budget_tokens": 9000})
    validate(long, interleaved)
    with pytest.raises(InvalidRequestError):
        validate(long, OLD)


def test_a_deferred_tool_next_to_a_loaded_one_or_a_tool_search_is_accepted() -> None:
    deferred = TOOL | {"defer_loading": True}
    validate(request(tools=[deferred, TOOL | {"name": "y"}]), OLD)
    search = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    validate(request(tools=[deferred, search]), OLD)


CITED = {"type": "text", "text": "x", "citations": [{"type": "char_location"}]}
FOUND = {"type": "search_result", "source": "s", "title": "t", "content": [CITED]}
PAPER = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}


@pytest.mark.parametrize(
    ("role", "block", "message"),
    [
        ("user", CITED, "messages.0.content.0.text.citations: Extra inputs are not permitted"),
        (
            "user",
            FOUND,
            "messages.0.content.0.search_result.content.0.citations:"
            " Extra inputs are not permitted",
        ),
        (
            "assistant",
            PAPER,
            "messages.0.content.0: `document` blocks can only be in `user` messages",
        ),
    ],
)
def test_the_newer_version_refuses_blocks_that_the_older_one_accepts(
    role: str, block: dict[str, Any], message: str
) -> None:
    fields = {"messages": [{"role": role, "content": [block]}, HELLO]}
    assert refusal(NEW, **fields) == message
    validate(request(**fields), OLD)


def test_citations_in_assistant_and_system_content_are_accepted_in_the_newer_version() -> None:
    call = request(messages=[HELLO, {"role": "assistant", "content": [CITED]}], system=[CITED])
    validate(call, NEW)


def test_sampling_is_accepted_in_the_newer_version() -> None:
    validate(request(temperature=0.5, top_p=0.5, top_k=5), NEW)


@pytest.mark.parametrize(
    ("header", "version"),
    [
        (None, "2023-06-01"),
        ("2023-01-01", "2023-06-01"),
        ("2023-06-01", "2023-06-01"),
        ("2026-10-21", "2026-10-21"),
        ("2031-01-01", "2026-10-21"),
        ("nonsense", "2026-10-21"),
    ],
)
def test_an_unknown_version_is_read_as_the_newest(header: str | None, version: str) -> None:
    assert api_version_of(header, "a-2026, b-2025,").betas == {"a-2026", "b-2025"}
    assert api_version_of(header, "").version == version


def test_counting_tokens_of_a_thread_is_refused() -> None:
    body = {"model": "m", "messages": [HELLO], "thread": {"type": "continue"}}
    with pytest.raises(InvalidRequestError, match=r"^thread: Extra inputs are not permitted$"):
        validate(decode(CountTokensRequest, body), OLD)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"type": "tool", "name": "y"}, "tool_choice.name: Tool 'y' not found in provided tools"),
        ({"type": "any"}, None),
        ({"type": "none"}, None),
    ],
)
def test_a_choice_of_an_unknown_tool_is_refused(
    choice: dict[str, str], message: str | None
) -> None:
    call = request(tools=[TOOL], tool_choice=choice)
    if message is None:
        validate(call, OLD)
    else:
        with pytest.raises(InvalidRequestError) as caught:
            validate(call, OLD)
        assert caught.value.message == message


def test_tool_choice_any_without_tools_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="only be specified while providing `tools`"):
        validate(request(tool_choice={"type": "any"}), OLD)


def unreadable(*messages: dict[str, Any], **fields: Any) -> str:
    return refusal(messages=messages or [HELLO], **fields)


LINKED = {"type": "document", "source": {"type": "url", "url": "https://a.example/b.pdf"}}


def test_image_is_refused_with_its_path_in_the_request() -> None:
    note = {"role": "system", "content": "the date changed"}
    message = {"role": "user", "content": [TEXT, IMAGE]}
    assert unreadable(HELLO, note, message) == f"messages.2.content.1.image: {NO_IMAGE}"


def test_image_in_a_tool_result_is_refused_with_its_path() -> None:
    result = {"type": "tool_result", "tool_use_id": "a", "content": [TEXT, IMAGE]}
    message = {"role": "user", "content": [TEXT, result]}
    expected = f"messages.0.content.1.tool_result.content.1.image: {NO_IMAGE}"
    assert unreadable(message) == expected


def test_document_by_url_is_refused_at_any_position() -> None:
    message = {"role": "user", "content": [LINKED]}
    assert unreadable(message) == f"messages.0.content.0.document: {NO_URL}"
    result = {"type": "tool_result", "tool_use_id": "a", "content": [LINKED]}
    assert unreadable({"role": "user", "content": [result]}) == (
        f"messages.0.content.0.tool_result.content.0.document: {NO_URL}"
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
    validate(request(messages=[HELLO, {"role": "assistant", "content": []}, HELLO]), OLD)


def test_computer_use_tools_are_refused_with_their_path() -> None:
    screen = {"type": "computer_20251124", "name": "computer", "display_width_px": 1}
    assert unreadable(tools=[TOOL, screen]) == (
        "tools.1: 'computer_20251124' is not supported by this model: it needs image input"
    )


def test_mcp_servers_are_refused() -> None:
    server = {"type": "url", "name": "s", "url": "https://mcp.test"}
    assert unreadable(mcp_servers=[server]).startswith("mcp_servers: ")
    validate(request(mcp_servers=[]), OLD)


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
    assert refusal(**fields) == message


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
    validate(request(**fields), OLD)


def test_earlier_turns_of_a_thread_were_validated_with_their_own_request() -> None:
    stored = {"role": "user", "content": [CITED]}
    with pytest.raises(InvalidRequestError):
        validate(request(messages=[stored, HELLO]), NEW)
    validate(request(messages=[stored, HELLO]), NEW, stored_turns=1)
