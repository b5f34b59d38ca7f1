"""Anthropic's messages as a chat template's turns."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.request import Conversation
from pensieve.errors import InvalidRequestError, ThreadUnsupportedError
from pensieve.prompt.turns import ChatTurn, chat_turns

HELLO = {"role": "user", "content": "hello"}


def turns(*messages: dict[str, object], **fields: object) -> list[ChatTurn]:
    return chat_turns(Conversation.model_validate({"model": "m", "messages": messages, **fields}))


def text(words: str, **fields: object) -> dict[str, object]:
    return {"type": "text", "text": words, **fields}


def test_the_system_prompt_comes_first() -> None:
    assert turns(HELLO, system="be brief") == [
        ChatTurn("system", "be brief"),
        ChatTurn("user", "hello"),
    ]


def test_turns_of_one_role_are_merged() -> None:
    assert turns(HELLO, {"role": "user", "content": "again"}) == [
        ChatTurn("user", "hello\n\nagain")
    ]


def test_a_system_turn_between_others_keeps_its_place() -> None:
    note = {"role": "system", "content": "the date changed"}
    assert [turn.role for turn in turns(HELLO, note, system="s")] == ["system", "user", "system"]


def test_a_system_turn_at_the_start_joins_the_system_prompt() -> None:
    note = {"role": "system", "content": "two"}
    assert turns(note, HELLO, system="one")[0] == ChatTurn("system", "one\n\ntwo")


def test_blocks_of_a_user_are_lines_and_those_of_the_assistant_are_one_text() -> None:
    blocks = [text("a"), text(""), text("b")]
    written = turns({"role": "user", "content": blocks}, {"role": "assistant", "content": blocks})
    assert [turn.text for turn in written] == ["a\nb", "ab"]


def test_claude_codes_billing_line_is_dropped() -> None:
    billing = text("x-anthropic-billing-header: cc_version=2.1.330.abc; cc_entrypoint=cli;")
    system = [billing, text("you are helpful", cache_control={"type": "ephemeral"})]
    assert turns(HELLO, system=system)[0] == ChatTurn("system", "you are helpful")


def test_thinking_of_earlier_turns_is_left_out() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "foreign"},
        {"type": "redacted_thinking", "data": "xyz"},
        text("answer"),
    ]
    assert turns(HELLO, {"role": "assistant", "content": blocks})[1].text == "answer"


@pytest.mark.parametrize("content", ["", [], [{"type": "text", "text": ""}]])
def test_a_user_who_says_nothing_is_refused(content: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"^messages.1: all messages must have non-empty"):
        turns(HELLO, {"role": "user", "content": content})


@pytest.mark.parametrize(("kind", "word"), [("image", "image"), ("document", "PDF")])
def test_media_is_refused_in_the_words_that_clients_heal_on(kind: str, word: str) -> None:
    content = [text("look"), {"type": kind, "source": {"type": "base64"}}]
    with pytest.raises(InvalidRequestError) as caught:
        turns({"role": "user", "content": content})
    assert caught.value.message == (
        f"messages.0.content.1.{kind}: Could not process {kind}:"
        f" model 'm' does not support {word} input"
    )


@pytest.mark.parametrize("thread", [{"type": "create"}, {"type": "continue", "id": "x"}, {}])
def test_a_thread_is_never_answered_without_its_history(thread: object) -> None:
    with pytest.raises(ThreadUnsupportedError):
        turns(HELLO, thread=thread)


@pytest.mark.parametrize("kind", ["any", "tool"])
def test_a_tool_that_must_be_used_is_refused(kind: str) -> None:
    with pytest.raises(InvalidRequestError, match="tool_choice"):
        turns(HELLO, tools=[{"name": "x"}], tool_choice={"type": kind, "name": "x"})


def test_tools_that_may_be_used_change_nothing() -> None:
    assert turns(HELLO, tools=[{"name": "x"}], tool_choice={"type": "auto"}) == turns(HELLO)


messages = st.builds(
    dict,
    role=st.sampled_from(["user", "assistant", "system"]),
    content=st.text("abc", min_size=1),
)


@given(st.lists(messages, min_size=1))
def test_no_role_comes_twice_in_a_row_and_no_word_is_lost(said: list[dict[str, object]]) -> None:
    written = turns(*said)
    roles = [turn.role for turn in written]
    assert all(one != other for one, other in pairwise(roles))
    spoken = "".join(turn.text for turn in written).replace("\n", "")
    assert spoken == "".join(str(message["content"]) for message in said)
