"""The logprobs of an answer's texts: those of the tokens that the texts are made of."""

import codecs
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import cycle, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.api.messages.accumulate import MessageAccumulator
from pensieve.api.messages.events import (
    ContentBlockDelta,
    MessageEvent,
    ScoredTextDelta,
    TextDelta,
)
from pensieve.api.messages.logprobs import TextLogprob, TokenLogprob
from pensieve.api.messages.message import TextContent
from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.dialect import ThinkingForm
from pensieve.dialects.families import plain
from pensieve.engine.generation import Finished, FinishReason, Logprobs, Started, Token
from pensieve.reply.reply import Reply, ReplyContext
from pensieve.reply.text_logprobs import TextLogprobs
from tests.dialects.cases import CASES, DIALECTS, TOOLS
from tests.support.fakes import STOP_TOKEN, ByteTokenizer

EXAMPLES = int(os.environ.get("PENSIEVE_LAW_EXAMPLES", "50"))
PLAIN = AnswerFormat(plain.DIALECT)


class Spelling(ByteTokenizer):
    """Decodes token n to the n-th piece."""

    def __init__(self, pieces: Sequence[bytes], hidden: str = "") -> None:
        super().__init__()
        self.pieces, self.hidden = pieces, hidden
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def bytes_of(self, token_id: int) -> bytes | None:
        return self.pieces[token_id] or None

    def name_of(self, token_id: int) -> str:
        return self.hidden

    def feed(self, token_id: int) -> str:
        return self.decoder.decode(self.pieces[token_id])

    def flush(self) -> str:
        return self.decoder.decode(b"", final=True)


def reply_events(
    pieces: Sequence[bytes],
    form: AnswerFormat = PLAIN,
    stops: tuple[str, ...] = (),
    *,
    end: FinishReason = "stop_token",
    is_scored: bool = True,
) -> list[MessageEvent]:
    """Return the events of an answer whose n-th token has the logarithm -n."""
    context = ReplyContext("msg_1", "m", 10, "max_tokens", form, stop_sequences=stops)
    spelling = Spelling(pieces)
    reply = Reply(context, spelling, TextLogprobs(spelling) if is_scored else None)
    tokens = [Token(at, Logprobs(-at) if is_scored else None) for at in range(len(pieces))]
    script = [Started(0), *tokens, Finished(end, len(pieces) + 1)]
    return [event for step in script for event in reply.feed(step)]


def deltas_of(events: Iterable[MessageEvent]) -> list[TextDelta]:
    deltas = (event.delta for event in events if isinstance(event, ContentBlockDelta))
    return [delta for delta in deltas if isinstance(delta, TextDelta)]


def scored(pieces: Sequence[bytes], *args, **more) -> list[tuple[str, list[tuple[bytes, float]]]]:
    """Return the texts, each with its tokens' bytes and logarithms."""
    return [
        (delta.text, [(bytes(one.bytes), -one.logprob) for one in delta.logprobs])
        for delta in deltas_of(reply_events(pieces, *args, **more))
        if isinstance(delta, ScoredTextDelta)
    ]


def content_of(events: Iterable[MessageEvent]) -> str:
    accumulator = MessageAccumulator()
    for event in events:
        accumulator.feed(event)
    blocks = accumulator.message.content
    return "".join(block.text for block in blocks if isinstance(block, TextContent))


def check_law(
    pieces: Sequence[bytes], form: AnswerFormat, stops: tuple[str, ...] = (), **more
) -> None:
    events = reply_events(pieces, form, stops, **more)
    assert content_of(events) == content_of(
        reply_events(pieces, form, stops, is_scored=False, **more)
    )
    order: list[float] = []
    for delta in deltas_of(events):
        assert isinstance(delta, ScoredTextDelta)
        spelled = b"".join(bytes(one.bytes) for one in delta.logprobs)
        assert spelled.decode("utf-8", "replace") == delta.text
        order += [-one.logprob for one in delta.logprobs]
    # Each token is reported once.
    assert order == sorted(set(order))


def pieces_of(text: bytes, sizes: Sequence[int]) -> list[bytes]:
    ends = [0]
    for size in cycle(sizes):
        if ends[-1] >= len(text):
            break
        ends.append(ends[-1] + size)
    return [text[start:end] for start, end in pairwise(ends)]


# Longer tokens might have text on both sides of something that is no text.
sizes_of_tokens = st.lists(st.integers(1, 4), min_size=1, max_size=20)
stop_lists = st.lists(st.sampled_from(["}", "is", "\n", "e w", "東"]), max_size=2).map(tuple)


@pytest.mark.parametrize("at", range(len(CASES)))
@given(sizes=sizes_of_tokens, stops=stop_lists, end=st.sampled_from(["stop_token", "length"]))
@settings(max_examples=EXAMPLES)
def test_tokens_of_every_text_are_joined_the_text(
    at: int, sizes: list[int], stops: tuple[str, ...], end: FinishReason
) -> None:
    case = CASES[at]
    form = AnswerFormat(DIALECTS[case.dialect], TOOLS)
    check_law(pieces_of(case.written.encode(), sizes), form, stops, end=end)


THINKING = AnswerFormat(
    replace(DIALECTS["hermes"], thinking=ThinkingForm("<think>", "</think>")), TOOLS
)
fragments = st.sampled_from(
    ["<think>", "</think>", " ", "\n", "a", "é", "`", '"', "<tool_call>", "{", "東京", "🙂", "STOP"]
)


@given(st.lists(fragments, max_size=12).map("".join), sizes_of_tokens)
def test_marks_and_blanks_that_are_dropped_have_no_tokens(text: str, sizes: list[int]) -> None:
    check_law(pieces_of(text.encode(), sizes), THINKING, ("STOP",))


@given(st.lists(fragments, max_size=12).map("".join), st.lists(st.integers(1, 99), min_size=1))
def test_text_does_not_depend_on_its_tokens(text: str, sizes: list[int]) -> None:
    pieces = pieces_of(text.encode(), sizes)
    plain_events = reply_events(pieces, THINKING, ("STOP",), is_scored=False)
    assert content_of(reply_events(pieces, THINKING, ("STOP",))) == content_of(plain_events)


@given(st.lists(st.binary(min_size=1, max_size=4), max_size=8))
def test_any_bytes_have_their_tokens(pieces: list[bytes]) -> None:
    check_law(pieces, PLAIN)


def test_text_has_the_tokens_that_were_generated() -> None:
    assert scored([b"Hel", b"lo", b" you"]) == [
        ("Hel", [(b"Hel", 0)]),
        ("lo", [(b"lo", 1)]),
        (" you", [(b" you", 2)]),
    ]


def test_tokens_within_a_character_come_with_it() -> None:
    moon = "月".encode()
    assert scored([b"a", moon[:1], moon[1:2], moon[2:] + b"b"]) == [
        ("a", [(b"a", 0)]),
        ("月b", [(moon[:1], 1), (moon[1:2], 2), (moon[2:] + b"b", 3)]),
    ]
    events = reply_events([moon[:1], moon[1:]])
    (delta,) = deltas_of(events)
    assert isinstance(delta, ScoredTextDelta)
    assert [one.token for one in delta.logprobs] == ["\\xe6", "\\x9c\\x88"]


def test_stop_sequence_and_what_is_held_back_for_it_have_no_tokens() -> None:
    assert scored([b"one", b" ST", b"ART", b" twoST", b"OP"], stops=("STOP",)) == [
        ("one", [(b"one", 0)]),
        (" START", [(b" ST", 1), (b"ART", 2)]),
        (" two", [(b" two", 3)]),
    ]


def test_thoughts_and_calls_have_no_tokens() -> None:
    call = b'<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
    pieces = [b"<think>", b"Hm", b"</think>", b"\n\n", b" Look", b":", b"\n", call]
    assert scored(pieces, THINKING) == [("Look", [(b"Look", 4)]), (":", [(b":", 5)])]


def test_unfinished_character_has_its_bytes() -> None:
    assert scored([b"a", b"\xe6"], end="length") == [
        ("a", [(b"a", 0)]),
        ("\ufffd", [(b"\xe6", 1)]),
    ]


def test_first_space_that_is_not_in_the_text_is_not_in_the_token() -> None:
    logprobs = TextLogprobs(Spelling([b" Hello"]))
    logprobs.note_token(Token(0, Logprobs(-1.0)), "Hello")
    logprobs.note_spans([(0, 5)])
    _, (token,) = logprobs.feed("Hello")
    assert (token.token, token.bytes) == ("Hello", tuple(b"Hello"))


def test_likeliest_tokens_are_spelled_and_control_tokens_named() -> None:
    logprobs = TextLogprobs(ByteTokenizer())
    top = ((ord("b"), -0.1), (0xE6, -0.2), (STOP_TOKEN, -0.3))
    logprobs.note_token(Token(ord("a"), Logprobs(-4.0, top)), "a")
    logprobs.note_spans([(0, 1)])
    assert logprobs.feed("a") == (
        "a",
        (
            TextLogprob(
                token="a",
                logprob=-4.0,
                bytes=(97,),
                top_logprobs=(
                    TokenLogprob(token="b", logprob=-0.1, bytes=(98,)),
                    TokenLogprob(token="\\xe6", logprob=-0.2, bytes=(0xE6,)),
                    TokenLogprob(token="<|end|>", logprob=-0.3, bytes=tuple(b"<|end|>")),
                ),
            ),
        ),
    )


def test_messages_api_writes_texts_without_logprobs() -> None:
    (event,) = (event for event in reply_events([b"a"]) if isinstance(event, ContentBlockDelta))
    expected = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}'
    assert event.to_json() == expected
