"""An incomplete call, whatever the cause, is never reported as a complete one."""

import logging
from collections.abc import Mapping

import pytest

from pensieve.api.messages.message import Message, StopReason
from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.dialect import Schema
from pensieve.engine.generation import Finished, FinishReason, Started, Token
from pensieve.reply.json_prefix import MAX_DIGITS
from pensieve.reply.reply import Reply, ReplyContext
from tests.dialects.cases import DIALECTS, TOOLS
from tests.reply.test_reply import Pieces, accumulated

BEGUN = '<tool_call>\n{"name": "write", "arguments": {"path": "a'
WHOLE = f'{BEGUN}", "content": "b"}}}}\n</tool_call>'


def answer_of(
    text: str, tools: Mapping[str, Schema] = TOOLS, reason: FinishReason = "stop_token"
) -> tuple[Reply, Message]:
    form = AnswerFormat(DIALECTS["hermes"], tools)
    reply = Reply(ReplyContext("msg_01a", "m", 10, "max_tokens", form), Pieces(text))
    script = [Started(0), *map(Token, range(len(text))), Finished(reason, len(text) + 1)]
    return reply, accumulated([event for step in script for event in reply.feed(step)])


def stop_reason_of(text: str, reason: FinishReason) -> StopReason | None:
    _, message = answer_of(text, reason=reason)
    assert message.content[0].name == "write"
    return message.stop_reason


@pytest.mark.parametrize(
    ("text", "reason", "stop_reason"),
    [
        (WHOLE, "stop_token", "tool_use"),
        (WHOLE, "length", "max_tokens"),
        (BEGUN, "stop_token", "max_tokens"),
        (BEGUN, "length", "max_tokens"),
        (f"{WHOLE}\n{BEGUN}", "stop_token", "max_tokens"),
        (f"{BEGUN}\", oh no", "stop_token", "max_tokens"),
        (f"{BEGUN}\", oh no\n{WHOLE}", "stop_token", "max_tokens"),
    ],
)  # fmt: skip
def test_an_incomplete_call_sets_max_tokens_and_is_logged(
    text: str, reason: FinishReason, stop_reason: StopReason, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pensieve.reply"):
        assert stop_reason_of(text, reason) == stop_reason
    problems = ("invalid input in", "answer ended within")
    is_logged = any(f"{problem} a call of tool " in caplog.text for problem in problems)
    assert is_logged == (text != WHOLE)


@pytest.mark.parametrize(
    ("arguments", "is_logged"),
    [('{"path": "a", "content": "b"}', False), ('{"path": "a"}', True), ('{"path": 1}', True)],
)
def test_an_input_that_violates_its_schema_is_logged(
    arguments: str, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    call = f'<tool_call>\n{{"name": "write", "arguments": {arguments}}}\n</tool_call>'
    with caplog.at_level(logging.WARNING, "pensieve.reply"):
        assert stop_reason_of(call, "stop_token") == "tool_use"
    assert ("input in a call of tool 2 of 3 violates its schema" in caplog.text) == is_logged


@pytest.mark.parametrize("rest", ["oh no", "1" * 50, f"x\n</tool_call>\n{WHOLE}"])
def test_what_follows_an_invalid_input_is_no_content(rest: str) -> None:
    reply, message = answer_of(f'{BEGUN}", {rest}')
    assert [block.type for block in message.content] == ["tool_use"]
    assert message.stop_reason == "max_tokens"
    assert reply.is_ended


@pytest.mark.parametrize("digits", [330, 600, MAX_DIGITS, MAX_DIGITS + 50])
def test_long_integer_is_an_input_or_ends_the_answer(digits: int) -> None:
    number = "7" * digits
    call = f'<tool_call>\n{{"name": "f", "arguments": {{"a": {number}}}}}\n</tool_call>'
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}
    _, message = answer_of(call, {"f": schema})
    (block,) = message.content
    is_whole = digits <= MAX_DIGITS
    assert message.stop_reason == ("tool_use" if is_whole else "max_tokens")
    assert block.input == ({"a": int(number)} if is_whole else {})


@pytest.mark.parametrize("cut", ['<tool_call>\n{"name": "wr', BEGUN.partition('{"path')[0]])
@pytest.mark.parametrize("reason", ["length", "stop_token"])
def test_call_that_is_cut_before_its_input_does_not_look_like_one_without(
    cut: str, reason: FinishReason
) -> None:
    _, message = answer_of(cut, reason=reason)
    assert all(block.type == "text" for block in message.content)
    if reason == "length":
        assert (message.content, message.stop_reason) == ((), "max_tokens")


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ('{"a": 12', {}),
        ('{"a": -1.5e', {}),
        ('{"a": true', {"a": True}),
        ('{"a": 1, "b": "x 12', {"a": 1}),
        ('{"a": 1, "b', {"a": 1}),
    ],
)
def test_cut_value_is_not_in_the_input(arguments: str, read: dict[str, object]) -> None:
    cut = f'<tool_call>\n{{"name": "write", "arguments": {arguments}'
    _, message = answer_of(cut, reason="length")
    assert [block.input for block in message.content] == [read]
