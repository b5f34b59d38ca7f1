"""Checks across the fields of a request, with the messages to which clients react."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.messages.request import CountTokensRequest, MessagesRequest, Turn, decode
from pensieve.api.messages.validation import check_call, check_choice, check_order
from pensieve.api.version import ApiVersion, api_version_of
from pensieve.errors import InvalidRequestError

HELLO = {"role": "user", "content": "hello"}
TOOL = {"name": "x", "input_schema": {}}
NEW = ApiVersion("2026-10-21")


def use(name: str) -> dict[str, object]:
    return {"type": "tool_use", "id": name, "name": "t", "input": {}}


def result(name: str) -> dict[str, object]:
    return {"type": "tool_result", "tool_use_id": name, "content": "ok"}


def turns(*entries: tuple[str, list[object]]) -> list[Turn]:
    return [decode(Turn, {"role": role, "content": content}) for role, content in entries]


def request(**fields: Any) -> MessagesRequest:
    return decode(
        MessagesRequest, {"model": "m", "messages": [HELLO], "max_tokens": 2000, **fields}
    )


def refusal(api_version: ApiVersion = ApiVersion(), **fields: Any) -> str:  # noqa: B008 -- frozen
    with pytest.raises(InvalidRequestError) as caught:
        check_call(request(**fields), api_version)
    return caught.value.message


def order_error(*entries: tuple[str, list[object]], stored_turns: int = 0) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        check_order(turns(*entries), stored_turns=stored_turns)
    return caught.value.message


def test_a_conversation_with_all_tool_uses_answered_is_accepted() -> None:
    check_order(
        turns(
            ("user", [{"type": "text", "text": "hi"}]),
            ("assistant", [use("a"), use("b")]),
            ("user", [result("b")]),
            ("system", [{"type": "text", "text": "the date changed"}]),
            ("user", [{"type": "text", "text": "and"}, result("a")]),
            ("assistant", [use("c")]),
            ("system", [{"type": "text", "text": "hm"}]),
            ("user", [result("c")]),
        )
    )


def test_a_tool_use_without_its_result_is_refused_with_its_id() -> None:
    expected = (
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: a,"
        " b. Each `tool_use` block must have a corresponding `tool_result` block in the next"
        " message."
    )
    uses = ("assistant", [use("a"), use("b"), use("c")])
    assert order_error(("user", []), uses, ("user", [result("c")])) == expected
    assert order_error(("user", []), uses, ("user", [result("c")]), ("assistant", [])) == expected
    assert order_error(("user", []), ("assistant", [use("a"), use("b")])) == expected


def test_a_result_without_its_tool_use_is_refused_with_its_path() -> None:
    expected = (
        "messages.2.content.1: unexpected `tool_use_id` found in `tool_result` blocks: b. Each"
        " `tool_result` block must have a corresponding `tool_use` block in the previous message."
    )
    entries = [("user", []), ("assistant", [use("a")]), ("user", [result("a"), result("b")])]
    assert order_error(*entries) == expected
    text = {"type": "text", "text": "hi"}
    alone = [("user", [text]), ("system", [text]), ("user", [text, result("b")])]
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
    stored = [("user", []), ("assistant", [use("a")])]
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
            ("user", [result(name) for name in data.draw(st.permutations(group))]),
        )
    ]
    check_order(turns(*entries))
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
    check_call(request(max_tokens=0), ApiVersion())
    for kind in ("adaptive", "disabled", "between_tools"):
        check_call(request(thinking={"type": kind, "display": "omitted"}), ApiVersion())
    check_call(request(thinking={"type": "enabled", "budget_tokens": 1999}), ApiVersion())


def test_thinking_between_tools_may_exceed_the_answer() -> None:
    interleaved = ApiVersion(betas=frozenset({"interleaved-thinking-2025-05-14"}))
    long = request(tools=[TOOL], thinking={"type": "enabled", "budget_tokens": 9000})
    check_call(long, interleaved)
    with pytest.raises(InvalidRequestError):
        check_call(long, ApiVersion())


def test_a_deferred_tool_next_to_a_loaded_one_or_a_tool_search_is_accepted() -> None:
    deferred = TOOL | {"defer_loading": True}
    check_call(request(tools=[deferred, TOOL | {"name": "y"}]), ApiVersion())
    search = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    check_call(request(tools=[deferred, search]), ApiVersion())


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
    check_call(request(**fields), ApiVersion())


def test_citations_in_assistant_and_system_content_are_accepted_in_the_newer_version() -> None:
    call = request(messages=[HELLO, {"role": "assistant", "content": [CITED]}], system=[CITED])
    check_call(call, NEW)


def test_sampling_is_accepted_in_the_newer_version() -> None:
    check_call(request(temperature=0.5, top_p=0.5, top_k=5), NEW)


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
        check_call(decode(CountTokensRequest, body), ApiVersion())


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
        check_choice(call)
    else:
        with pytest.raises(InvalidRequestError) as caught:
            check_choice(call)
        assert caught.value.message == message


def test_tool_choice_any_without_tools_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="only be specified while providing `tools`"):
        check_choice(request(tool_choice={"type": "any"}))
