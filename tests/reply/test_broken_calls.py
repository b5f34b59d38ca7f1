"""A call that ends unfinished, for whatever cause, is never told as a finished one."""

import logging

import pytest

from pensieve.api.messages.message import StopReason
from pensieve.dialects.answer_format import AnswerFormat
from pensieve.engine.generation import Finished, FinishReason, Started, Token
from pensieve.reply.reply import Reply, ReplyContext
from tests.dialects.cases import DIALECTS, TOOLS
from tests.reply.test_reply import Pieces, folded

BEGUN = '<tool_call>\n{"name": "write", "arguments": {"path": "a'
WHOLE = f'{BEGUN}", "content": "b"}}}}\n</tool_call>'


def ended(text: str, reason: FinishReason) -> StopReason | None:
    form = AnswerFormat(DIALECTS["hermes"], TOOLS)
    reply = Reply(ReplyContext("msg_01a", "m", 10, "max_tokens", form), Pieces([text]))
    script = [Started(0), Token(0), Finished(reason, 2)]
    return folded([event for one in script for event in reply.feed(one)]).stop_reason


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
def test_the_stop_reason_and_the_log_say_whether_calls_are_whole(
    text: str, reason: FinishReason, stop_reason: StopReason, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pensieve.reply"):
        assert ended(text, reason) == stop_reason
    has_warned = "the input of a call of write is not whole" in caplog.text
    assert has_warned == (text != WHOLE)


@pytest.mark.parametrize(
    ("arguments", "is_told"),
    [('{"path": "a", "content": "b"}', False), ('{"path": "a"}', True), ('{"path": 1}', True)],
)
def test_an_input_that_does_not_obey_its_schema_is_logged(
    arguments: str, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    call = f'<tool_call>\n{{"name": "write", "arguments": {arguments}}}\n</tool_call>'
    with caplog.at_level(logging.WARNING, "pensieve.reply"):
        assert ended(call, "stop_token") == "tool_use"
    assert ("a call of write does not obey its schema" in caplog.text) == is_told
