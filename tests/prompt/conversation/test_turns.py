"""Convert messages to a chat template's turns and text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.messages.request import Conversation, decode
from pensieve.dialects.families import plain
from pensieve.prompt.conversation.block_text import ToolNames
from pensieve.prompt.conversation.tools import tool_set_of
from pensieve.prompt.conversation.turns import chat_turns, trimmed
from pensieve.prompt.template.chat_messages import ChatWriter, tool_uses
from pensieve.prompt.template.renderer import CallIds

HELLO = {"role": "user", "content": "hello"}
TEXT_SOURCE = {"type": "text", "media_type": "text/plain", "data": "body"}
WEB_RESULT = {"type": "web_search_result", "title": "T", "url": "u", "encrypted_content": "zz"}


def turns_of(*messages: dict[str, object], **fields: object) -> list[tuple[str, str]]:
    """Return pairs of role and content, as a template gets them."""
    call = decode(Conversation, {"model": "m", "messages": messages, **fields})
    tool_names = ToolNames(tool_uses(call.messages), tool_set_of(call, 1000).presented)
    ids = CallIds(plain.DIALECT)
    writer = ChatWriter(plain.DIALECT, tool_names, str, lambda _: None, ids, lambda *_: None)
    written = [message for turn in chat_turns(call) for message in writer.messages(turn)]
    return [(str(message["role"]), str(message["content"])) for message in written]


def text(content: str, **fields: object) -> dict[str, object]:
    return {"type": "text", "text": content, **fields}


def block_text(block: dict[str, object], role: str = "user") -> str:
    """Return the text of one block between two texts, which must stay."""
    ((_, written),) = turns_of({"role": role, "content": [text("before"), block, text("after")]})
    return written.removeprefix("before").removesuffix("after")


def test_the_system_prompt_comes_first() -> None:
    assert turns_of(HELLO, system="be brief") == [("system", "be brief"), ("user", "hello")]


def test_turns_of_one_role_are_merged() -> None:
    assert turns_of(HELLO, {"role": "user", "content": "again"}) == [("user", "hello\n\nagain")]


def test_system_turn_between_others_keeps_its_position() -> None:
    note = {"role": "system", "content": "the date changed"}
    roles = [role for role, _ in turns_of(HELLO, note, system="s")]
    assert roles == ["system", "user", "system"]


def test_a_system_turn_at_the_start_joins_the_system_prompt() -> None:
    note = {"role": "system", "content": "two"}
    assert turns_of(note, HELLO, system="one")[0] == ("system", "one\n\ntwo")


def test_blocks_of_a_user_are_lines_and_texts_of_the_assistant_are_one_text() -> None:
    blocks = [text("a"), text(""), text("b")]
    written = turns_of(
        {"role": "user", "content": blocks}, {"role": "assistant", "content": blocks}
    )
    assert written == [("user", "a\nb"), ("assistant", "ab")]


def test_cache_breakpoint_does_not_change_the_text() -> None:
    marked = text("hello", cache_control={"type": "ephemeral"})
    assert turns_of({"role": "user", "content": [marked]}) == turns_of(HELLO)


def test_claude_codes_billing_line_is_dropped() -> None:
    billing = text("x-anthropic-billing-header: cc_version=2.1.330.abc; cc_entrypoint=cli;")
    system = [billing, text("you are helpful", cache_control={"type": "ephemeral"})]
    assert turns_of(HELLO, system=system)[0] == ("system", "you are helpful")


@pytest.mark.parametrize(
    "counter",
    ["<total_tokens>184000 tokens left", "<total_tokens>9,000 tokens left</total_tokens>"],
)
def test_counters_of_remaining_tokens_are_dropped_from_client_text(counter: str) -> None:
    note = {"role": "system", "content": f"{counter}\nthe date changed"}
    user = {"role": "user", "content": [text("hello"), text(counter)]}
    assert turns_of(user, note, system=f"be brief\n{counter}") == [
        ("system", "be brief\n"),
        ("user", "hello"),
        ("system", "the date changed"),
    ]
    question = f"what does {counter} mean?"
    assert turns_of({"role": "user", "content": question}) == [("user", question)]


def test_temporary_system_turn_is_dropped_after_the_next_user_turn() -> None:
    passing = {"role": "system", "content": "plan mode", "clear_at": "next_user_message"}
    staying = {"role": "system", "content": "the date", "clear_at": "never"}
    answer = {"role": "assistant", "content": "ok"}
    note = ("system", "plan mode\n\nthe date")
    assert turns_of(HELLO, passing, staying) == [("user", "hello"), note]
    assert turns_of(HELLO, passing, staying, answer)[1] == note
    assert turns_of(HELLO, passing, staying, answer, HELLO)[1] == ("system", "the date")


def test_system_turn_of_settings_alone_is_dropped() -> None:
    assert turns_of(HELLO, {"role": "system", "output_config": {"effort": "low"}}) == [
        ("user", "hello")
    ]


def test_thinking_of_earlier_turns_is_left_out() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "foreign"},
        {"type": "redacted_thinking", "data": "xyz"},
        text("answer"),
    ]
    assert turns_of(HELLO, {"role": "assistant", "content": blocks})[1] == ("assistant", "answer")
    assert turns_of(HELLO, {"role": "assistant", "content": blocks[:2]}) == [("user", "hello")]


def test_a_call_and_its_result_name_their_tool() -> None:
    use = {"type": "tool_use", "id": "a", "name": "get_weather", "input": {"z": "é", "a": [1.5]}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": [text("sunny"), text("25°")]}
    assert turns_of(
        {"role": "assistant", "content": [text("Let me see."), use, use | {"id": "b"}]},
        {"role": "user", "content": [result, result | {"tool_use_id": "b"}, text("and now?")]},
    ) == [
        (
            "assistant",
            "Let me see.\n"
            '<tool_call>\n{"name": "get_weather", "arguments": {"z": "é", "a": [1.5]}}\n'
            "</tool_call>\n"
            '<tool_call>\n{"name": "get_weather", "arguments": {"z": "é", "a": [1.5]}}\n'
            "</tool_call>",
        ),
        (
            "user",
            '<tool_result name="get_weather">\nsunny\n25°\n</tool_result>\n'
            '<tool_result name="get_weather">\nsunny\n25°\n</tool_result>\nand now?',
        ),
    ]


def test_error_result_is_marked_and_empty_result_is_written() -> None:
    failed = {
        "type": "tool_result",
        "tool_use_id": "a",
        "content": "no such file",
        "is_error": True,
    }
    assert block_text(failed) == "\n<tool_result>\nError: no such file\n</tool_result>\n"
    empty = {"type": "tool_result", "tool_use_id": "a"}
    assert block_text(empty) == "\n<tool_result>\n\n</tool_result>\n"


@pytest.mark.parametrize(
    ("block", "written"),
    [
        (
            {"type": "document", "source": TEXT_SOURCE, "title": 'a "b"', "context": "from 1984"},
            '<document title="a \\"b\\"">\nfrom 1984\n\nbody\n</document>',
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [text("x"), text("y")]}},
            "<document>\nx\ny\n</document>",
        ),
        (
            {
                "type": "search_result",
                "source": "s",
                "title": "t",
                "content": [text("x"), text("y")],
            },
            '<search_result source="s" title="t">\nx\ny\n</search_result>',
        ),
        (
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
            '[web_search "q"]',
        ),
        (
            {
                "type": "server_tool_use",
                "id": "s",
                "name": "bash_code_execution",
                "input": {"a": 1, "b": 2},
            },
            '[bash_code_execution {"a": 1, "b": 2}]',
        ),
        (
            {
                "type": "web_search_tool_result",
                "tool_use_id": "s",
                "content": [WEB_RESULT, WEB_RESULT],
            },
            "T\nu\nT\nu",
        ),
        (
            {
                "type": "web_search_tool_result",
                "tool_use_id": "s",
                "content": {"type": "web_search_tool_result_error", "error_code": "unavailable"},
            },
            "unavailable",
        ),
        (
            {
                "type": "web_fetch_tool_result",
                "tool_use_id": "s",
                "content": {
                    "type": "web_fetch_result",
                    "url": "u",
                    "content": {"type": "document", "title": "T", "source": TEXT_SOURCE},
                },
            },
            "u\nT\nbody",
        ),
        (
            {
                "type": "web_fetch_tool_result",
                "tool_use_id": "s",
                "content": {"url": "u", "content": {"source": {"type": "base64", "data": "AAAA"}}},
            },
            "u",
        ),
        (
            {
                "type": "bash_code_execution_tool_result",
                "tool_use_id": "s",
                "content": {"stdout": "out", "stderr": "err", "return_code": 1, "content": []},
            },
            "out\nerr\n1",
        ),
        (
            {
                "type": "text_editor_code_execution_tool_result",
                "tool_use_id": "s",
                "content": {"file_type": "text", "content": "def f():"},
            },
            "def f():",
        ),
        (
            {
                "type": "text_editor_code_execution_tool_result",
                "tool_use_id": "s",
                "content": {"lines": ["-a", "+b"]},
            },
            "-a\n+b",
        ),
        (
            {
                "type": "bash_code_execution_tool_result",
                "tool_use_id": "s",
                "content": {"content": [text("x")]},
            },
            "x",
        ),
        (
            {
                "type": "tool_search_tool_result",
                "tool_use_id": "s",
                "content": {"tool_references": [{"type": "tool_reference", "tool_name": "t"}]},
            },
            "t",
        ),
        (
            {"type": "mcp_tool_use", "id": "m", "name": "n", "server_name": "s", "input": {"a": 1}},
            '<tool_call>\n{"name": "n", "arguments": {"a": 1}}\n</tool_call>',
        ),
        (
            {"type": "mcp_tool_result", "tool_use_id": "m", "content": [text("x")]},
            "<tool_result>\nx\n</tool_result>",
        ),
        ({"type": "container_upload", "file_id": "f"}, "[file f, not available here]"),
        ({"type": "compaction", "content": "in short"}, "in short"),
    ],
)
def test_block_content_is_written_in_its_position(block: dict[str, object], written: str) -> None:
    assert block_text(block) == f"\n{written}\n"


@pytest.mark.parametrize(
    "block",
    [
        {"type": "compaction", "content": None},
        {"type": "fallback", "from": {}, "to": {}},
        {"type": "advisor_tool_result", "tool_use_id": "a", "content": {}},
        {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": []},
    ],
)
def test_blocks_for_the_hosted_api_are_left_out(block: dict[str, object]) -> None:
    assert block_text(block) == "\n"


def test_an_added_tool_that_is_not_defined_has_no_text() -> None:
    added = {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "nope"}}
    assert not block_text(added, "system").strip()


@pytest.mark.parametrize(
    ("part", "written"),
    [
        ({"type": "tool_reference", "tool_name": "t"}, "<tool_reference>\nt\n</tool_reference>"),
        (
            {"type": "browser_state", "tabs": [{"url": "u"}]},
            '{"tabs": [{"url": "u"}], "state_changes": null}',
        ),
        ({"type": "document", "source": TEXT_SOURCE}, "<document>\nbody\n</document>"),
    ],
)
def test_parts_of_a_result_are_written_too(part: dict[str, object], written: str) -> None:
    block = {"type": "tool_result", "tool_use_id": "a", "content": [text("see:"), part]}
    assert block_text(block) == f"\n<tool_result>\nsee:\n{written}\n</tool_result>\n"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a \n"], ["a"]),
        ([" a b ", " ", "\n"], [" a b"]),
        ([" "], []),
        ([], []),
    ],
)
def test_trailing_whitespace_of_a_prefill_is_removed(texts: list[str], expected: list[str]) -> None:
    begun = {"role": "assistant", "content": [text(content) for content in texts]}
    call = decode(Conversation, {"model": "m", "messages": [begun | {"role": "user"}]})
    turns = [trimmed(turn) for turn in chat_turns(call)]
    blocks = [block.text for turn in turns for block in turn.blocks]
    assert blocks == expected


def test_a_prefill_that_ends_in_a_call_is_unchanged() -> None:
    use = {"type": "tool_use", "id": "a", "name": "t", "input": {}}
    for content, count in (([text("a "), use], 2), ([use, text(" ")], 1)):
        call = decode(
            Conversation, {"model": "m", "messages": [{"role": "assistant", "content": content}]}
        )
        (turn,) = chat_turns(call)
        assert list(trimmed(turn).blocks) == list(turn.blocks)[:count]


def test_the_last_cache_breakpoint_of_a_turn_counts() -> None:
    marks = [{"type": "ephemeral", "ttl": ttl} for ttl in ("5m", "1h")]
    content = [*(text("a", cache_control=mark) for mark in marks), text("b")]
    call = decode(Conversation, {"model": "m", "messages": [{"role": "user", "content": content}]})
    (turn,) = chat_turns(call)
    assert turn.cache_control is not None
    assert turn.cache_control.ttl == "1h"


def test_tool_texts_precede_the_system_prompt_and_instructions_follow_it() -> None:
    call = decode(Conversation, {"model": "m", "messages": [HELLO], "system": "s"})
    system, _ = chat_turns(call, ["tools"], ["instructions"])
    assert [getattr(block, "text", None) for block in system.blocks] == [
        "tools",
        "s",
        "instructions",
    ]
    assert chat_turns(call)[0].cache_control is None


messages = st.builds(
    dict,
    role=st.sampled_from(["user", "assistant", "system"]),
    content=st.text("abc", min_size=1),
)


@given(st.lists(messages, min_size=1))
def test_turns_alternate_and_keep_all_text(sent: list[dict[str, object]]) -> None:
    written = turns_of(*sent)
    assert all(one != other for (one, _), (other, _) in pairwise(written))
    all_text = "".join(content for _, content in written).replace("\n", "")
    assert all_text == "".join(str(message["content"]) for message in sent)
