"""Find the control tokens that end a turn: a template writes them after an answer or a call.

A token that names the next turn (`<|user|>`, `<|observation|>`) ends one too: a model that begins
another turn has ended its own.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from pensieve.dialects.dialect import Dialect, ToolCall, Variables
from pensieve.dialects.format_calls import format_calls
from pensieve.dialects.probing.probe import (
    ANSWER,
    CLOSED,
    FOLLOW_UP_TURN,
    MORE,
    QUESTION_TURN,
    Message,
    Probe,
)

_ID = "a23456789"
CALL = ToolCall("quartz", {"violin": ANSWER})
RESULT: Message = {"role": "tool", "name": CALL.name, "tool_call_id": _ID, "content": MORE}


def call_turn(dialect: Dialect) -> Message:
    """Return an assistant's turn with one call, in the form that `dialect` gives to templates."""
    if dialect.writer == "text":
        return {"role": "assistant", "content": format_calls(dialect.calls, [CALL])}
    function = {"name": CALL.name, "arguments": CALL.arguments}
    call = {"id": _ID, "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def ends_of_turn(probe: Probe, dialect: Dialect) -> frozenset[str]:
    """Return the tokens' texts; empty if the template shows none."""
    own = dialect.marks(probe.controls)
    answer: Message = {"role": "assistant", "content": ANSWER}
    found = {
        *_ends(probe, [QUESTION_TURN, answer], FOLLOW_UP_TURN, own),
        *_ends(probe, [QUESTION_TURN, call_turn(dialect)], RESULT, own),
        *_openings(probe, answer, own),
    }
    return frozenset(found - own)


def _ends(
    probe: Probe, turns: Sequence[Message], following: Message, own: frozenset[str]
) -> Iterator[str]:
    """Yield the tokens that close the last turn, and the first one before the following turn."""
    closed = probe.text(turns, CLOSED) or ""
    if closed != probe.text(turns):  # else the next turn's beginning is in it
        yield from probe.controls_in(closed.rpartition(ANSWER)[2])
    continued = probe.text([*turns, following], CLOSED) or ""
    after, is_whole, _ = continued.rpartition(ANSWER)[2].partition(MORE)
    if is_whole:
        yield from [token for token in probe.controls_in(after) if token not in own][:1]


def _openings(probe: Probe, answer: Message, own: frozenset[str]) -> Iterator[str]:
    """Yield the tokens that begin a turn, if each role has a token of its own."""

    def first_more(
        closed: Sequence[Message], turns: Sequence[Message], *variables: Variables
    ) -> str:
        """Return the first token of the longer text that differs from the closed turns."""
        shorter, longer = probe.text(closed, CLOSED) or "", probe.text(turns, *variables) or ""
        before, found = (
            [token for token in probe.controls_in(text) if token not in own]
            for text in (shorter, longer)
        )
        pairs = zip_longest(found, before)
        return next((token for token, other in pairs if token and token != other), "")

    ours = first_more([QUESTION_TURN], [QUESTION_TURN])
    theirs = first_more([QUESTION_TURN, answer], [QUESTION_TURN, answer, FOLLOW_UP_TURN], CLOSED)
    if ours != theirs:
        yield from filter(None, (ours, theirs))
