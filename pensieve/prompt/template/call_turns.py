"""Finds out, with small conversations, how a chat template writes turns with tool calls.

Some templates write either the text or the calls of a turn, some write the text after the results,
and some take one call only. renderer.py works around what is found here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import commonprefix

from pensieve.dialects.dialect import CallForm, Dialect, Variables
from pensieve.dialects.probing.probe import Message
from pensieve.errors import InvalidRequestError
from pensieve.prompt.chat_tokenizer import ChatTokenizer

# Texts of the turns. No template contains them.
_QUESTION, _TEXT = "quartz", "copper"
_NAMES = ("zebra", "violin")
_RESULTS = ("walnut", "granite")
_IDS = ("a23456789", "b23456789")

_QUESTION_TURN: Message = {"role": "user", "content": _QUESTION}
_ANSWER_TURN: Message = {"role": "assistant", "content": _TEXT}
_RESULT_TURNS: Sequence[Message] = [
    {"role": "tool", "name": name, "tool_call_id": call_id, "content": text}
    for name, call_id, text in zip(_NAMES, _IDS, _RESULTS, strict=True)
]
# Some templates write calls only if tools are offered.
_TOOL: Message = {
    "type": "function",
    "function": {
        "name": "marble",
        "description": "onyx",
        "parameters": {"type": "object", "properties": {}},
    },
}


@dataclass(frozen=True, slots=True)
class CallFrame:
    """What the template writes around the names of a turn's calls that have no arguments."""

    opening: str  # from the turn's beginning to where the text of an answer would begin
    head: str  # from there to the name of the first call
    joint: re.Pattern[str] | None  # between two names; None if the results are written there
    tail: re.Pattern[str]  # from the last name to the end of the call, without its last mark
    text_opening: str = ""  # what a text begins with, if a call begins otherwise
    last_mark: str = ""  # the control token that ends a call, if it may end an answer too


@dataclass(frozen=True, slots=True)
class CallTurns:
    frame: CallFrame | None = None  # None: not found
    takes_text: bool = True  # text, its calls and their results, in this order
    takes_text_apart: bool = True  # the same if the text is a message of its own
    takes_several: bool = True  # calls in one message

    def limits(self) -> Iterator[str]:
        """Yield what the template cannot do, and what is done instead, for the log."""
        if not self.takes_several:
            yield "takes no parallel calls: each is written with its result"
        if self.takes_text:
            return
        if self.frame is not None:
            yield "does not write text before tool calls: both are written in its place"
        elif self.takes_text_apart:
            yield "does not write text before tool calls: the text is a turn of its own"
        else:
            yield "does not write text before tool calls: earlier turns with calls lose their text"


def call_turns_of(tokenizer: ChatTokenizer, dialect: Dialect, variables: Variables) -> CallTurns:
    """Probe the template with these variables."""
    trial = _Trial(tokenizer, dialect, {**variables, "tools": [_TOOL]})
    if dialect.calls_with_results:
        return CallTurns(trial.frame(), takes_several=False)
    return CallTurns(
        trial.frame(), trial.takes_text(), trial.takes_text_apart(), trial.takes_several()
    )


@dataclass(frozen=True, slots=True)
class _Trial:
    tokenizer: ChatTokenizer
    dialect: Dialect
    variables: Variables

    def takes_text(self) -> bool:
        return _in_order(
            self._text(_QUESTION_TURN, _call_turn(1, _TEXT), _RESULT_TURNS[0]),
            _TEXT,
            _NAMES[0],
            _RESULTS[0],
        )

    def takes_text_apart(self) -> bool:
        text = self._text(_QUESTION_TURN, _ANSWER_TURN, _call_turn(1), _RESULT_TURNS[0])
        return _in_order(text, _TEXT, _NAMES[0], _RESULTS[0])

    def takes_several(self) -> bool:
        text = self._text(_QUESTION_TURN, _call_turn(2), *_RESULT_TURNS)
        pairs = (*zip(_NAMES, _RESULTS, strict=True), _NAMES, _RESULTS)
        return all(_in_order(text, *pair) for pair in pairs)

    def frame(self) -> CallFrame | None:
        """Return the frame; None if what is written for a call depends on what follows it."""
        before = self._text(_QUESTION_TURN)
        later = self._text(_QUESTION_TURN, _ANSWER_TURN, _QUESTION_TURN)
        resulted = self._text(_QUESTION_TURN, _call_turn(1), _RESULT_TURNS[0])
        if not (before and later.startswith(before) and resulted.startswith(before)):
            return None
        opening = later.removeprefix(before).partition(_TEXT)[0]
        head, name, rest = resulted.removeprefix(before).partition(_NAMES[0])
        between, result, _ = rest.partition(_RESULTS[0])
        tail = self._tail(between, before)
        if not (head and name and result) or _IDS[0] in head or _NAMES[0] in tail:
            return None
        if not _ends_call(self.dialect.calls, tail):
            return None
        is_same = head.startswith(opening)
        last_mark = self._last_mark(tail)
        return CallFrame(
            opening=opening if is_same else "",
            head=head.removeprefix(opening) if is_same else head,
            joint=self._joint(),
            tail=_pattern(tail.removesuffix(last_mark)),
            text_opening="" if is_same else opening,
            last_mark=last_mark,
        )

    def _tail(self, between: str, before: str) -> str:
        """Return what belongs to the call of the text between its name and its result."""
        answered = self._text(_QUESTION_TURN, _ANSWER_TURN)
        called = self._text(_QUESTION_TURN, _call_turn(1))
        if called:  # without a result; what both have in common may include the end of the turn
            rest = called.removeprefix(before).partition(_NAMES[0])[2]
            between = commonprefix([between, rest])  # noqa: RUF071 -- no paths
            between = between.removesuffix(answered.partition(_TEXT)[2])
        marks = self.dialect.marks(self.tokenizer.controls)
        others = set(self.tokenizer.controls) - marks
        ends = (offset for text in others if (offset := between.find(text)) >= 0)
        return between[: min(ends, default=len(between))]

    def _last_mark(self, tail: str) -> str:
        form = self.dialect.calls
        mark = form.after_arguments
        is_last = not form.closing and mark in self.tokenizer.controls and tail.endswith(mark)
        return mark if is_last else ""

    def _joint(self) -> re.Pattern[str] | None:
        text = self._text(_QUESTION_TURN, _call_turn(2), *_RESULT_TURNS)
        joint, name, _ = text.partition(_NAMES[0])[2].partition(_NAMES[1])
        return _pattern(joint) if name and _RESULTS[0] not in joint else None

    def _text(self, *messages: Message) -> str:
        """Return the text without the beginning of an answer; empty if the template refuses."""
        try:
            return self.tokenizer.render(
                messages, {**self.variables, "add_generation_prompt": False}
            )
        except InvalidRequestError:
            return ""


def _call_turn(count: int, text: str = "") -> Message:
    calls: list[Message] = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": {}}}
        for name, call_id in zip(_NAMES[:count], _IDS, strict=False)
    ]
    return {"role": "assistant", "content": text, "tool_calls": calls}


def _in_order(text: str, *markers: str) -> bool:
    offsets = [text.find(marker) for marker in markers]
    return -1 not in offsets and offsets == sorted(offsets)


def _ends_call(form: CallForm, tail: str) -> bool:
    """Whether `tail` has all that this form ends a call with."""
    ends = (form.after_arguments.replace("{id}", _IDS[0]), form.inside[1], form.closing)
    return all(end.strip() in tail for end in ends)


def _pattern(text: str) -> re.Pattern[str]:
    """Return a pattern for `text` with any ids."""
    escaped = re.escape(text)
    for call_id in _IDS:
        escaped = escaped.replace(call_id, r"[\w-]+")
    return re.compile(escaped)
