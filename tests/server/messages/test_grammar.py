"""Every stream obeys the grammar, for any engine output or error; violations are detected."""

from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.dialects.dialect import Dialect, ThinkingForm
from pensieve.dialects.families import plain
from pensieve.engine.generation import Finished, Prefilled, Started, Token
from pensieve.errors import WorkerDiedError
from tests.server.grammar import check_grammar
from tests.server.messages.test_golden import GOLDEN
from tests.server.serving import CALL, app_of, in_memory, stream_events
from tests.support.fakes import ScriptedEngine, Step

steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(Token, st.integers(0, 255)),
    st.sampled_from(list(map(Token, "aSTOP\u2028é🙂".encode()))),
    st.builds(Prefilled, st.integers(0, 9)),
)
markup = st.sampled_from(
    [
        "<tool_call>",
        '\n{"name": "clock", "arguments": {',
        '"a": "',
        '"}',
        "}}\n</tool_call>",
        "<think>",
        "</think>",
        "x",
    ]
).map(lambda text: list(map(Token, text.encode())))
CLOCK = {"name": "clock", "input_schema": {"type": "object"}}
THINKER = replace(plain.DIALECT, thinking=ThinkingForm())
ends: st.SearchStrategy[Step] = st.sampled_from(
    [Finished("stop_token", 9), Finished("length", 9), WorkerDiedError("died"), ZeroDivisionError()]
)


@given(
    st.lists(steps, max_size=12),
    ends,
    st.sampled_from([[], ["STOP"], ["a", "é"]]),
    st.integers(1, 9),
)
@settings(max_examples=60)
def test_stream_obeys_grammar_for_any_engine_script(
    steps: list[Step], end: Step, stops: list[str], max_tokens: int
) -> None:
    call = CALL | {"stream": True, "stop_sequences": stops, "max_tokens": max_tokens}
    text = anyio.run(_streamed, [Started(3), *steps, end], call)
    assert text.isascii()
    check_grammar(stream_events(text))


@given(st.lists(markup, max_size=12), ends, st.sampled_from([None, "omitted"]))
@settings(max_examples=60)
def test_stream_of_thoughts_and_calls_obeys_grammar(
    pieces: list[list[Step]], end: Step, display: str | None
) -> None:
    thinking = {"type": "adaptive", "display": display}
    call = CALL | {"stream": True, "tools": [CLOCK], "thinking": thinking, "max_tokens": 500}
    script: list[Step] = [Started(3), *(step for piece in pieces for step in piece), end]
    check_grammar(stream_events(anyio.run(_streamed, script, call, THINKER)))


async def _streamed(
    script: list[Step], call: dict[str, Any], dialect: Dialect = plain.DIALECT
) -> str:
    async with in_memory(app_of(ScriptedEngine([script]), dialect=dialect)) as client:
        return (await client.post("/v1/messages", json=call)).text


def whole_stream() -> list[dict[str, Any]]:
    text = (GOLDEN / "cached_and_marked.sse").read_text(encoding="utf-8")
    return stream_events(text.partition("\n\n")[2].rstrip("\n") + "\n\n")


def test_golden_transcript_obeys_grammar() -> None:
    check_grammar(whole_stream())


@pytest.mark.parametrize("lost", [0, 2, 5, 6, 7])
def test_checker_detects_lost_event(lost: int) -> None:
    events = whole_stream()
    del events[lost]
    with pytest.raises(AssertionError):
        check_grammar(events)


@pytest.mark.parametrize("twice", [0, 2, 5, 6, 7])
def test_checker_detects_duplicate_event(twice: int) -> None:
    events = whole_stream()
    events.insert(twice, events[twice])
    with pytest.raises((AssertionError, AttributeError)):
        check_grammar(events)


def test_checker_detects_index_gap_and_shrinking_usage() -> None:
    events = whole_stream()
    for event in events:
        if "index" in event:
            event["index"] += 1
    with pytest.raises(AssertionError, match="contiguous"):
        check_grammar(events)
    events = whole_stream()
    events[0]["message"]["usage"]["output_tokens"] = 99
    with pytest.raises(AssertionError, match="cumulative"):
        check_grammar(events)
