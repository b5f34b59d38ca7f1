"""Conversion of engine events to message events."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.messages.accumulate import MessageAccumulator
from pensieve.api.messages.content_blocks import Breakpoint
from pensieve.api.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
)
from pensieve.api.messages.message import (
    ContextEdits,
    Message,
    TextContent,
    ThinkingContent,
    ToolUseContent,
)
from pensieve.api.messages.signatures import thought_in
from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.dialect import ThinkingForm
from pensieve.dialects.families import plain
from pensieve.engine.generation import (
    EngineEvent,
    Finished,
    FinishReason,
    Prefilled,
    Started,
    Token,
)
from pensieve.reply.reply import Reply, ReplyContext
from tests.dialects.cases import DIALECTS, HERMES, TOOLS
from tests.reply.test_stop_sequences import expected_scan

PLAIN = AnswerFormat(plain.DIALECT)


class Pieces:
    """A detokenizer that decodes token n to the n-th piece, and `at_end` when flushed."""

    def __init__(self, pieces: Sequence[str], at_end: str = "") -> None:
        self._pieces = pieces
        self._at_end = at_end

    def feed(self, token_id: int) -> str:
        return self._pieces[token_id]

    def flush(self) -> str:
        return self._at_end


def reply_to(pieces: Sequence[str], *stops: str, at_end: str = "") -> Reply:
    context = ReplyContext(
        "msg_01a", "m", 10, "model_context_window_exceeded", PLAIN, stop_sequences=stops
    )
    return Reply(context, Pieces(pieces, at_end))


def events_for(context: ReplyContext, *events: EngineEvent) -> list[MessageEvent]:
    reply = Reply(context, Pieces(["a", "b"]))
    return [produced for event in events for produced in reply.feed(event)]


def answer(
    pieces: Sequence[str], *stops: str, at_end: str = "", end: EngineEvent | None = None
) -> list[MessageEvent]:
    reply = reply_to(pieces, *stops, at_end=at_end)
    script = [Started(4), Prefilled(5), *map(Token, range(len(pieces)))]
    last = end or Finished("stop_token", len(pieces) + 1)
    return [produced for event in (*script, last) for produced in reply.feed(event)]


def accumulated(events: list[MessageEvent]) -> Message:
    accumulator = MessageAccumulator()
    for event in events:
        accumulator.feed(event)
    return accumulator.message


def text_of(events: list[MessageEvent]) -> str:
    return "".join(content.text for content in accumulated(events).content)


def kinds(events: list[MessageEvent]) -> list[type]:
    return [kind for kind, _ in groupby(map(type, events))]


WHOLE = [
    MessageStart,
    ContentBlockStart,
    ContentBlockDelta,
    ContentBlockStop,
    MessageDelta,
    MessageStop,
]
SILENT = [MessageStart, MessageDelta, MessageStop]


def test_a_text_answer_is_one_block_between_start_and_stop() -> None:
    events = answer(["Hel", "", "lo"])
    assert kinds(events) == WHOLE
    assert text_of(events) == "Hello"
    assert accumulated(events).stop_reason == "end_turn"


def test_usage_splits_the_prompt_into_cached_and_uncached_tokens() -> None:
    events = answer(["a"])
    assert isinstance(events[0], MessageStart)
    for usage in (events[0].message.usage, accumulated(events).usage):
        assert (usage.input_tokens, usage.cache_read_input_tokens) == (6, 4)
    assert events[0].message.usage.output_tokens == 0
    assert accumulated(events).usage.output_tokens == 2


def test_processed_tokens_before_a_breakpoint_count_as_cache_creation() -> None:
    marks = (Breakpoint(6, "1h"), Breakpoint(9))
    context = ReplyContext("msg_01a", "m", 10, "max_tokens", PLAIN, breakpoints=marks)
    events = events_for(context, Started(4), Token(0), Finished("stop_token", 2))
    assert isinstance(events[0], MessageStart)
    for usage in (events[0].message.usage, accumulated(events).usage):
        assert (usage.input_tokens, usage.cache_read_input_tokens) == (1, 4)
        assert usage.cache_creation_input_tokens == 5
        assert usage.cache_creation.ephemeral_5m_input_tokens == 3
        assert usage.cache_creation.ephemeral_1h_input_tokens == 2


def test_a_later_cached_length_appears_in_the_final_usage() -> None:
    context = ReplyContext("msg_01a", "m", 10, "max_tokens", PLAIN)
    events = events_for(context, Started(0), Started(7), Token(0), Finished("stop_token", 1))
    assert [type(event) for event in events].count(MessageStart) == 1
    usage = accumulated(events).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (3, 7)


@pytest.mark.parametrize("end", [Token(0), Finished("stop_token", 1)])
def test_a_silent_answer_ends_at_the_first_token(end: EngineEvent) -> None:
    context = ReplyContext("msg_01a", "m", 10, "max_tokens", PLAIN, is_silent=True)
    events = events_for(context, Started(4), Prefilled(10), end, Token(1))
    assert kinds(events) == SILENT
    assert accumulated(events).content == ()
    assert accumulated(events).stop_reason == "max_tokens"
    assert accumulated(events).usage.output_tokens == 0


def test_context_edits_are_reported_with_the_final_usage() -> None:
    edits = ContextEdits()
    context = ReplyContext("msg_01a", "m", 10, "max_tokens", PLAIN, edits=edits)
    events = events_for(context, Started(0), Finished("stop_token", 1))
    assert accumulated(events).context_management == edits
    assert isinstance(events[0], MessageStart)
    assert events[0].message.context_management is None


def test_an_answer_without_text_has_no_block() -> None:
    assert kinds(answer([])) == SILENT
    assert kinds(answer(["", ""])) == SILENT


def test_the_length_limit_reports_the_configured_stop_reason() -> None:
    assert accumulated(answer(["a"], end=Finished("length", 1))).stop_reason == (
        "model_context_window_exceeded"
    )


def test_a_stop_sequence_ends_the_answer_at_once() -> None:
    reply = reply_to(["one S", "TO", "P two"], "STOP")
    events = [event for step in (Started(0), Token(0), Token(1)) for event in reply.feed(step)]
    assert not reply.is_ended
    events += reply.feed(Token(2))
    assert reply.is_ended
    assert text_of(events) == "one "
    assert accumulated(events).stop_reason == "stop_sequence"
    assert accumulated(events).stop_sequence == "STOP"
    assert accumulated(events).usage.output_tokens == 3


def test_events_after_the_end_are_ignored() -> None:
    reply = reply_to(["STOP", "more"], "STOP")
    for event in (Started(0), Token(0)):
        reply.feed(event)
    assert reply.is_ended
    assert reply.feed(Token(1)) == reply.feed(Finished("stop_token", 9)) == []


def test_a_stop_sequence_at_the_start_leaves_no_block() -> None:
    events = answer(["ST", "OP"], "STOP")
    assert kinds(events) == SILENT
    assert accumulated(events).stop_sequence == "STOP"


def test_delayed_text_is_emitted_at_the_end() -> None:
    assert text_of(answer(["a S", "T"], "STOP", at_end="\ufffd")) == "a ST\ufffd"


@pytest.mark.parametrize(
    ("written", "reason", "text"),
    [
        ("a <tool_c", "stop_token", "a <tool_c"),
        ("a <tool_c", "length", "a <tool_c"),
        ("a\n<tool_call>\n{", "stop_token", "a\n<tool_call>\n{"),
        ("a\n<tool_call>\n{", "length", "a"),
    ],
)
def test_an_incomplete_mark_is_text_and_the_beginning_of_a_cut_call_is_not(
    written: str, reason: FinishReason, text: str
) -> None:
    form = AnswerFormat(DIALECTS["hermes"], TOOLS)
    reply = Reply(ReplyContext("msg_01a", "m", 10, "max_tokens", form), Pieces([written]))
    script = [Started(0), Token(0), Finished(reason, 1)]
    events = [event for step in script for event in reply.feed(step)]
    assert text_of(events) == text


def test_usage_before_the_start_counts_the_whole_prompt() -> None:
    usage = reply_to([]).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (10, 0, 0)


def test_a_stop_sequence_completed_by_the_final_flush_ends_the_answer() -> None:
    events = answer(["a S", "TO"], "STOP", at_end="P")
    assert text_of(events) == "a "
    assert accumulated(events).stop_reason == "stop_sequence"
    assert accumulated(events).usage.output_tokens == 3


def without_counts(events: list[MessageEvent]) -> tuple[list[type], str, str | None, str | None]:
    message = accumulated(events)
    return kinds(events), text_of(events), message.stop_reason, message.stop_sequence


@given(
    st.lists(st.text("STOP x", max_size=3), max_size=12),
    st.sets(st.sampled_from(["STOP", "S", "TO", "P x", "OP"]), max_size=3),
    st.sampled_from([Finished("stop_token", 1), Finished("length", 1)]),
)
def test_any_text_is_one_block_up_to_the_first_stop_sequence(
    pieces: list[str], stops: set[str], end: Finished
) -> None:
    text, stop = expected_scan("".join(pieces), tuple(stops))
    ended = "model_context_window_exceeded" if end.reason == "length" else "end_turn"
    events = answer(pieces, *sorted(stops), end=end)
    assert text_of(events) == text
    assert kinds(events) == (WHOLE if text else SILENT)
    assert accumulated(events).stop_reason == ("stop_sequence" if stop else ended)
    assert accumulated(events).stop_sequence == stop
    assert all(event.delta.text for event in events if isinstance(event, ContentBlockDelta))


@pytest.mark.parametrize("hides_thoughts", [False, True])
def test_thoughts_text_and_calls_are_separate_blocks_and_thinking_tokens_are_counted(
    hides_thoughts: bool,
) -> None:
    form = AnswerFormat(
        replace(DIALECTS["hermes"], thinking=ThinkingForm()), TOOLS, is_in_thought=True
    )
    context = ReplyContext(
        "msg_01a", "m", 10, "max_tokens", form, ("STOP",), hides_thoughts=hides_thoughts
    )
    pieces = ["H", "m.</think>", "Lo", f"ok. ST\n{HERMES}"]
    reply = Reply(context, Pieces(pieces))
    script = [Started(0), *map(Token, range(4)), Finished("stop_token", 5)]
    events = [event for step in script for event in reply.feed(step)]
    message = accumulated(events)
    thinking, text, use = message.content
    assert (thinking.thinking, thought_in(thinking.signature)) == (
        ("", "Hm.") if hides_thoughts else ("Hm.", None)
    )
    assert thinking.signature.startswith("pensieve1.")
    assert text.text == "Look. ST"
    assert (use.name, use.input) == ("get_weather", {"city": "Paris"})
    assert use.id.startswith("toolu_01")
    assert message.stop_reason == "tool_use"
    assert message.usage.output_tokens_details.thinking_tokens == 2
    starts = [event for event in events if isinstance(event, ContentBlockStart)]
    stops = [event for event in events if isinstance(event, ContentBlockStop)]
    assert [event.index for event in starts] == [event.index for event in stops] == [0, 1, 2]
    assert [event.content_block for event in starts] == [
        ThinkingContent(thinking="", signature=""),
        TextContent(text=""),
        ToolUseContent(id=use.id, name="get_weather", input={}),
    ]


@pytest.mark.parametrize("stops", [(), ("ZZ",)])
def test_text_passes_through_unchanged(stops: tuple[str, ...]) -> None:
    pieces = ["é", "Z", "", "y", "Z"]
    assert text_of(answer(pieces, *stops)) == "".join(pieces)
