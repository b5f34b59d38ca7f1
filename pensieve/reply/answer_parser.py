"""Parse an answer's text into thoughts, text and tool calls, incrementally; reply.py feeds it.

Invariant: however the text is split into pieces, the coalesced events are the same, and no
character of the content is lost or invented. An invalid call ends the answer: what follows it is
no content.

Blanks next to a mark belong to the mark. Marks of calls count only if there are tools, marks of a
thought only at the beginning of an answer. A closing mark that closes nothing is dropped, unless it
is quoted.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import assert_never

from pensieve.dialects.answer_format import AnswerFormat
from pensieve.reply.bare_calls import BareCallParser
from pensieve.reply.char_parser import CharParser, UnexpectedError
from pensieve.reply.json_prefix import BLANKS
from pensieve.reply.parse_events import (
    ParseEvent,
    Text,
    Thought,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from pensieve.reply.parser_states import Broken, InBareCall, InCall, InText, InThought, State
from pensieve.reply.spans import Span, part_of
from pensieve.reply.tool_call_parser import ToolCallParser


class AnswerParser:
    """Owns the parser state of one answer."""

    def __init__(self, answer_format: AnswerFormat, *, has_spans: bool = False) -> None:
        self._has_spans = has_spans  # texts know where they are in the answer
        self._dialect = answer_format.dialect
        self._tools = answer_format.tools
        self._has_text = answer_format.has_text
        self._calls_left = answer_format.max_calls
        self._opening = answer_format.dialect.calls.opening if answer_format.tools else ""
        thinking = answer_format.dialect.thinking
        pair = (thinking.opening, thinking.closing) if thinking is not None else ()
        self._thought_marks = [mark for mark in pair if mark not in answer_format.dialect.silent]
        marks = (self._opening, *answer_format.dialect.silent, *self._thought_marks)
        self._marks = [mark for mark in marks if mark]
        self._state: State = (
            InThought()
            if answer_format.is_in_thought
            else InText(may_think=answer_format.may_think)
        )
        self._unparsed = ""
        self._length = 0  # of the text so far
        self._events: list[ParseEvent] = []

    @cached_property
    def _calls(self) -> ToolCallParser:
        return ToolCallParser(self._dialect.calls, self._tools, self._emit_call_event)

    @cached_property
    def _bare_call_start(self) -> re.Pattern[str]:
        chars = "".join(sorted(self._bare_calls(is_after_call=True).first_chars))
        return re.compile(rf"^[ \t]*([{re.escape(chars)}])", re.MULTILINE)

    @property
    def is_in_thought(self) -> bool:
        return isinstance(self._state, InThought)

    def feed(self, piece: str) -> list[ParseEvent]:
        """Append to the text; return the events that no later text can change."""
        self._unparsed += piece
        self._length += len(piece)
        while self._unparsed and self._step():
            pass
        return self._take_events()

    def flush(self, *, is_cut: bool) -> list[ParseEvent]:
        """End the text; return the remaining events. is_cut: generation stopped early."""
        while isinstance(self._state, InBareCall):
            self._end_bare_call(self._state, is_cut=is_cut)
        match self._state:
            case InThought():
                self._emit_thought(self._state, self._unparsed)
            case InText():
                # An answer of calls alone that is cut short can only end in a partial mark.
                if self._has_text or not is_cut:
                    self._end_text(self._state)
            case InCall(before, _, pending, has_emitted):
                if not has_emitted and not is_cut:
                    self._emit_text(before, pending)
            case Broken():
                pass
            case _:
                assert_never(self._state)
        return self._take_events()

    def _take_events(self) -> list[ParseEvent]:
        events, self._events = self._events, []
        return coalesce(events)

    def _step(self) -> bool:
        """Parse within the current state; return whether the pending text can be parsed further."""
        match self._state:
            case InThought():
                return self._step_thought(self._state)
            case InText():
                return self._step_text(self._state)
            case InCall():
                return self._step_call(self._state)
            case InBareCall():
                return self._step_bare_call(self._state)
            case Broken():
                self._take(len(self._unparsed))
                return False
            case _:
                assert_never(self._state)

    def _take(self, count: int) -> str:
        """Remove and return the next characters."""
        taken, self._unparsed = self._unparsed[:count], self._unparsed[count:]
        return taken

    # Thoughts.

    def _step_thought(self, state: InThought) -> bool:
        assert self._dialect.thinking is not None
        closing = self._dialect.thinking.closing
        index = self._unparsed.find(closing)
        if index < 0:
            self._emit_thought(state, self._take(settled_length(self._unparsed, [closing])))
            return False
        self._emit_thought(state, self._take(index))
        self._take(len(closing))
        self._state = InText(may_think=False, keeps_leading_blanks=False)
        return True

    def _emit_thought(self, state: InThought, text: str) -> None:
        pending = state.trailing_blanks + text
        text = pending.rstrip(BLANKS)
        state.trailing_blanks = pending[len(text) :]
        if not state.has_begun:
            text = text.lstrip(BLANKS)
        if text:
            state.has_begun = True
            self._events.append(Thought(text))

    # Text.

    def _step_text(self, state: InText) -> bool:
        if not state.has_begun and (progressed := self._parse_beginning(state)) is not None:
            return progressed
        index, mark = find_first(self._marks, self._unparsed)
        bare = self._find_bare_call(state)
        if bare >= 0 and (not mark or bare < index):
            self._emit_text(state, self._take(bare))
            return self._begin_bare_call(state)
        if not mark:
            self._emit_text(state, self._take(settled_length(self._unparsed, self._marks)))
            return False
        self._emit_text(state, self._take(index))
        self._take(len(mark))
        if mark == self._opening:
            self._open_call(state, self._calls.parse_section(), mark)
        elif mark in self._thought_marks:
            self._handle_thought_mark(state, mark)
        else:
            self._state = InText(keeps_leading_blanks=False)
        return True

    def _parse_beginning(self, state: InText) -> bool | None:
        """Parse a thought or an unmarked call at the beginning; None if it is text."""
        text = (state.trailing_blanks + self._unparsed).lstrip(BLANKS)
        thinking = self._dialect.thinking if state.may_think else None
        if thinking is not None and text.startswith(thinking.opening):
            self._unparsed = text.removeprefix(thinking.opening)
            self._state = InThought()
            return True
        if thinking is not None and thinking.opening.startswith(text):
            return False
        if state.may_be_call and self._tools and not self._opening and text[:1] == "{":
            self._unparsed, state.trailing_blanks = state.trailing_blanks + self._unparsed, ""
            self._open_call(state, self._calls.parse_unmarked(), "")
            return True
        return None

    def _handle_thought_mark(self, state: InText, mark: str) -> None:
        """Emit a mark that opens or closes a thought within the text or is quoted; drop others."""
        assert self._dialect.thinking is not None
        if mark == self._dialect.thinking.opening:
            state.open_thoughts += 1
        elif state.open_thoughts:
            state.open_thoughts -= 1
        elif not state.quoting.is_open:
            if not state.has_begun:
                state.trailing_blanks, state.keeps_leading_blanks = "", False
            return
        self._emit_text(state, mark)

    def _emit_text(self, state: InText, text: str) -> None:
        """Emit the text that was just taken, without trailing blanks if they may belong to a mark
        that follows.
        """
        if text:
            state.is_text_next = False
        pending = state.trailing_blanks + text
        spans = self._spans(state, text) if self._has_spans else ()
        if self._tools or self._marks:
            state.quoting.feed(text)
            text = pending.rstrip(BLANKS)
        else:
            text = pending
        end = len(text)
        state.trailing_blanks = pending[end:]
        if spans:
            state.blank_spans = part_of(spans, end, len(pending))
        if not state.has_begun and not state.keeps_leading_blanks:
            text = text.lstrip(BLANKS)
        if text:
            state.has_begun = True
            own = part_of(spans, end - len(text), end) if spans else ()
            self._events.append(Text(text, own))

    def _end_text(self, state: InText) -> None:
        self._emit_text(state, self._take(len(self._unparsed)))
        if state.trailing_blanks and (state.has_begun or state.keeps_leading_blanks):
            self._events.append(Text(state.trailing_blanks, state.blank_spans))

    @property
    def _position(self) -> int:
        return self._length - len(self._unparsed)

    def _spans(self, state: InText, text: str) -> tuple[Span, ...]:
        """Return where the trailing blanks and the `text` that was just taken are."""
        blanks = part_of(state.blank_spans, 0, len(state.trailing_blanks))
        return *blanks, (self._position - len(text), self._position)

    # Calls.

    def _open_call(self, before: InText, parser: CharParser[None], mark: str) -> None:
        next(parser)
        self._state = InCall(before, parser, mark)

    def _step_call(self, state: InCall) -> bool:
        while self._unparsed:
            char = self._take(1)
            state.pending += char
            try:
                state.parser.send(char)
            except StopIteration:
                self._state = InText(
                    may_think=False,
                    may_be_call=False,
                    is_after_call=True,
                    keeps_leading_blanks=False,
                )
                return True
            except UnexpectedError:
                self._break_call(state)
                return True
        return False

    def _emit_call_event(self, event: ParseEvent) -> None:
        assert isinstance(self._state, InCall)
        self._events.append(event)
        self._calls_left -= isinstance(event, ToolCallStart)
        self._state.pending = ""
        self._state.has_emitted = True
        self._state.is_open = not isinstance(event, ToolCallEnd)

    def _break_call(self, state: InCall) -> None:
        """End an invalid call and the answer, or parse what is no call after all as text."""
        if state.is_open:
            # What follows cannot be told from the rest of the call.
            self._events.append(ToolCallEnd(is_whole=False))
            self._state = Broken()
            return
        if state.has_emitted:
            self._state = InText(may_think=False, may_be_call=False, keeps_leading_blanks=False)
            self._unparsed = state.pending + self._unparsed
            return
        self._state = state.before
        self._state.may_be_call = False
        self._unparsed = state.pending + self._unparsed
        self._emit_text(self._state, self._take(len(self._opening)))

    # Calls without marks, at the end of the answer.

    def _bare_calls(self, *, is_after_call: bool) -> BareCallParser:
        return BareCallParser(
            self._dialect.calls, self._tools, self._calls_left, is_after_call=is_after_call
        )

    def _find_bare_call(self, state: InText) -> int:
        """Return the index of a line that may be a bare call and is not fenced; -1 for none."""
        if not self._tools:
            return -1
        for match in self._bare_call_start.finditer(self._unparsed):
            index = match.start(1)
            is_text_next = state.is_text_next and not index
            if not is_text_next and state.quoting.is_new_line_after(self._unparsed[:index]):
                return index
        return -1

    def _begin_bare_call(self, state: InText) -> bool:
        calls = self._bare_calls(is_after_call=state.is_after_call and not state.has_begun)
        self._state = InBareCall(state, calls, calls.parse())
        next(self._state.parser)
        return True

    def _step_bare_call(self, state: InBareCall) -> bool:
        while self._unparsed:
            char = self._take(1)
            state.pending += char
            try:
                state.parser.send(char)
            except UnexpectedError:
                self._reparse_as_text(state)
                return True
        return False

    def _end_bare_call(self, state: InBareCall, *, is_cut: bool) -> None:
        if not is_cut:
            state.calls.finish(state.parser)
        if state.calls.events:
            self._events += state.calls.events
            self._state = InText()
            return
        self._reparse_as_text(state)
        while self._unparsed and self._step():
            pass

    def _reparse_as_text(self, state: InBareCall) -> None:
        """Parse the pending characters again, as text."""
        self._state = state.before
        self._state.is_text_next = True
        self._unparsed = state.pending + self._unparsed


def settled_length(text: str, marks: Sequence[str]) -> int:
    """Return the length of `text` without an ending that may be the beginning of a mark."""
    max_partial = max(map(len, marks), default=1) - 1
    for length in range(min(max_partial, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return len(text) - length
    return len(text)


def find_first(marks: Sequence[str], text: str) -> tuple[int, str]:
    """Return index and mark of the first, then longest, of `marks` in `text`, or (-1, "")."""
    found = [(index, -len(mark), mark) for mark in marks if (index := text.find(mark)) >= 0]
    index, _, mark = min(found, default=(-1, 0, ""))
    return index, mark


def coalesce(events: Sequence[ParseEvent]) -> list[ParseEvent]:
    """Merge consecutive texts, thoughts and deltas."""
    merged: list[ParseEvent] = []
    for event in events:
        match merged[-1:], event:
            case [Text(before, spans)], Text(text, more):
                merged[-1] = Text(before + text, (*spans, *more))
            case [Thought(before)], Thought(text):
                merged[-1] = Thought(before + text)
            case [ToolCallDelta(before)], ToolCallDelta(json):
                merged[-1] = ToolCallDelta(before + json)
            case _:
                merged.append(event)
    return merged
