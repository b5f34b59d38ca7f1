"""An incomplete call, whatever the cause, is never reported as a complete one."""

import logging

import pytest

from pensieve.api.messages.message import StopReason
from pensieve.dialects.answer_format import AnswerFormat
from pensieve.engine.generation import Finished, FinishReason, Started, Token
from pensieve.reply.reply import Reply, ReplyContext
from tests.dialects.cases import DIALECTS, TOOLS
from tests.reply.test_reply import Pieces, accumulated

BEGUN = '<tool_call>\n{"name": "write", "arguments": {"path": "a'
WHOLE = f'{BEGUN}", "content": "b"}}}}\n</tool_call>'


def stop_reason_of(text: str, reason: FinishReason) -> StopReason | None:
    form = AnswerFormat(DIALECTS["hermes"], TOOLS)
    reply = Reply(ReplyContext("msg_01a", "m", 10, "max_tokens", form), Pieces(text))
    script = [Started(0), *map(Token, range(len(text))), Finished(reason, len(text) + 1)]
    message = accumulated([event for step in script for event in reply.feed(step)])
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
