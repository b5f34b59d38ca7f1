"""The marks in an answer's text: what is thought, what is said, what is called.

Law: the same text cut anyhow gives the same, once pieces that follow each other are put together; no word is lost and none
invented. Blanks beside a mark belong to it. Marks count only where they mean something: those of calls where tools
are at hand, those of a thought at the beginning of an answer. A closing mark that closes nothing is never said, unless it is quoted.
"""

import re
from typing import assert_never

from pensieve.dialects.answer_format import AnswerFormat
from pensieve.reply.bare_calls import BareCallParser
from pensieve.reply.char_parser import CharParser, UnexpectedError, certain, first_of
from pensieve.reply.json_prefix import BLANKS
from pensieve.reply.parse_events import (
    ParseEvent,
    Text,
    Thought,
    ToolCallEnd,
    ToolCallStart,
    coalesce,
)
from pensieve.reply.parser_states import InBareCall, InCall, InText, InThought, State
from pensieve.reply.tool_call_parser import ToolCallParser


class AnswerParser:
    """Owns the state of one answer's text."""

    def __init__(self, form: AnswerFormat) -> None:
        self._dialect = form.dialect
        self._tools = form.tools
        self._has_text = form.has_text
        self._calls_left = form.max_calls
        self._calls = ToolCallParser(form.dialect.calls, form.tools, self._tell)
        self._opening = form.dialect.calls.opening if form.tools else ""
        thinking = form.dialect.thinking
        pair = (thinking.opening, thinking.closing) if thinking is not None else ()
        self._thought_marks = [mark for mark in pair if mark not in form.dialect.silent]
        marks = (self._opening, *form.dialect.silent, *self._thought_marks)
        self._marks = [mark for mark in marks if mark]
        chars = "".join(sorted(self._bare_calls(is_after_call=True).first_chars))
        self._may_be_bare = re.compile(rf"^[ \t]*([{re.escape(chars)}])", re.MULTILINE)
        self._state: State = InThought() if form.is_in_thought else InText(may_think=form.may_think)
        self._rest = ""
        self._said: list[ParseEvent] = []

    @property
    def is_in_thought(self) -> bool:
        """The model is thinking."""
        return isinstance(self._state, InThought)

    def feed(self, piece: str) -> list[ParseEvent]:
        """What is certain now that `piece` has come."""
        self._rest += piece
        while self._rest and self._step():
            pass
        return self._taken()

    def flush(self, *, is_cut: bool) -> list[ParseEvent]:
        """What was held back, at the answer's end. is_cut: the model would have gone on."""
        while isinstance(self._state, InBareCall):
            self._end_alone(self._state, is_cut=is_cut)
        match self._state:
            case InThought():
                self._think(self._state, self._rest)
            case InText():
                # A cut answer that is calls and nothing else ends in a mark that is not whole.
                if self._has_text or not is_cut:
                    self._end_text(self._state)
            case InCall(before, _, unsaid, has_told):
                if not has_told and not is_cut:
                    self._say(before, unsaid)
            case _:
                assert_never(self._state)
        return self._taken()

    def _taken(self) -> list[ParseEvent]:
        said, self._said = self._said, []
        return coalesce(said)

    def _step(self) -> bool:
        """Go on as far as one state goes; whether there is more to do with what is here."""
        match self._state:
            case InThought():
                return self._in_thought(self._state)
            case InText():
                return self._in_text(self._state)
            case InCall():
                return self._in_call(self._state)
            case InBareCall():
                return self._in_alone(self._state)
            case _:
                assert_never(self._state)

    def _take(self, count: int) -> str:
        """The next letters, which are dealt with now."""
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    # Thoughts.

    def _in_thought(self, state: InThought) -> bool:
        assert self._dialect.thinking is not None
        closing = self._dialect.thinking.closing
        place = self._rest.find(closing)
        if place < 0:
            self._think(state, self._take(certain(self._rest, [closing])))
            return False
        self._think(state, self._take(place))
        self._take(len(closing))
        self._state = InText(may_think=False, keeps_blanks=False)
        return True

    def _think(self, state: InThought, text: str) -> None:
        held = state.held + text
        text = held.rstrip(BLANKS)
        state.held = held[len(text) :]
        if not state.has_begun:
            text = text.lstrip(BLANKS)
        if text:
            state.has_begun = True
            self._said.append(Thought(text))

    # Text.

    def _in_text(self, state: InText) -> bool:
        if not state.has_begun and (begun := self._beginning(state)) is not None:
            return begun
        place, mark = first_of(self._marks, self._rest)
        bare = self._bare_place(state)
        if bare >= 0 and (not mark or bare < place):
            self._say(state, self._take(bare))
            return self._begin_alone(state)
        if not mark:
            self._say(state, self._take(certain(self._rest, self._marks)))
            return False
        self._say(state, self._take(place))
        self._take(len(mark))
        if mark == self._opening:
            self._open_call(state, self._calls.section(), mark)
        elif mark in self._thought_marks:
            self._pass_thought_mark(state, mark)
        else:
            self._state = InText(may_be_call=False, keeps_blanks=False)
        return True

    def _beginning(self, state: InText) -> bool | None:
        """What an answer begins with that is no text: as `_step`, and None where it is text."""
        text = (state.held + self._rest).lstrip(BLANKS)
        thinking = self._dialect.thinking if state.may_think else None
        if thinking is not None and text.startswith(thinking.opening):
            self._rest = text.removeprefix(thinking.opening)
            self._state = InThought()
            return True
        if thinking is not None and thinking.opening.startswith(text):
            return False
        if state.may_be_call and self._tools and not self._opening and text[:1] == "{":
            self._rest, state.held = state.held + self._rest, ""
            self._open_call(state, self._calls.alone(), "")
            return True
        return None

    def _pass_thought_mark(self, state: InText, mark: str) -> None:
        """Say a mark that is quoted, that opens something in the text, or that closes what was opened there; drop others."""
        assert self._dialect.thinking is not None
        if mark == self._dialect.thinking.opening:
            state.open_thoughts += 1
        elif state.open_thoughts:
            state.open_thoughts -= 1
        elif not state.quoting.is_open:
            if not state.has_begun:
                state.held, state.keeps_blanks = "", False
            return
        self._say(state, mark)

    def _say(self, state: InText, text: str) -> None:
        """Blanks at the end are held back where a mark may follow that they belong to."""
        if text:
            state.is_tried = False
        state.quoting.feed(text)
        held = state.held + text
        text = held.rstrip(BLANKS) if self._tools or self._marks else held
        state.held = held[len(text) :]
        if not state.has_begun and not state.keeps_blanks:
            text = text.lstrip(BLANKS)
        if text:
            state.has_begun = True
            self._said.append(Text(text))

    def _end_text(self, state: InText) -> None:
        self._say(state, self._take(len(self._rest)))
        if state.held and (state.has_begun or state.keeps_blanks):
            self._said.append(Text(state.held))

    # Calls.

    def _open_call(self, before: InText, reading: CharParser[None], mark: str) -> None:
        next(reading)
        self._state = InCall(before, reading, mark)

    def _in_call(self, state: InCall) -> bool:
        while self._rest:
            letter = self._take(1)
            state.unsaid += letter
            try:
                state.reading.send(letter)
            except StopIteration:
                self._state = InText(
                    may_think=False, may_be_call=False, is_after_call=True, keeps_blanks=False
                )
                return True
            except UnexpectedError:
                self._break_call(state)
                return True
        return False

    def _tell(self, said: ParseEvent) -> None:
        """Take what a call's reader has read."""
        assert isinstance(self._state, InCall)
        self._said.append(said)
        self._calls_left -= isinstance(said, ToolCallStart)
        self._state.unsaid = ""
        self._state.has_told = True
        self._state.is_open = not isinstance(said, ToolCallEnd)

    def _break_call(self, state: InCall) -> None:
        """What was to be a call is none, or none any more: the rest of it is text."""
        if state.is_open:
            self._said.append(ToolCallEnd(is_whole=False))
        if state.has_told:
            self._state = InText(
                may_think=False,
                may_be_call=False,
                may_have_bare_calls=not state.is_open,
                keeps_blanks=False,
            )
            self._rest = state.unsaid + self._rest
            return
        self._state = state.before
        self._state.may_be_call = False
        self._say(self._state, self._opening)
        self._rest = state.unsaid.removeprefix(self._opening) + self._rest

    # Calls without marks, which end the answer.

    def _bare_calls(self, *, is_after_call: bool) -> BareCallParser:
        return BareCallParser(
            self._dialect.calls, self._tools, self._calls_left, is_after_call=is_after_call
        )

    def _bare_place(self, state: InText) -> int:
        """Where a line begins that may be such a call, outside of fenced blocks; -1 for none."""
        if not self._tools or not state.may_have_bare_calls:
            return -1
        for found in self._may_be_bare.finditer(self._rest):
            place = found.start(1)
            is_tried = state.is_tried and not place
            if not is_tried and state.quoting.is_new_line_after(self._rest[:place]):
                return place
        return -1

    def _begin_alone(self, state: InText) -> bool:
        calls = self._bare_calls(is_after_call=state.is_after_call and not state.has_begun)
        self._state = InBareCall(state, calls, calls.read())
        next(self._state.reading)
        return True

    def _in_alone(self, state: InBareCall) -> bool:
        while self._rest:
            letter = self._take(1)
            state.unsaid += letter
            try:
                state.reading.send(letter)
            except UnexpectedError:
                self._go_back(state)
                return True
        return False

    def _end_alone(self, state: InBareCall, *, is_cut: bool) -> None:
        if not is_cut:
            state.calls.finish(state.reading)
        if state.calls.said:
            self._said += state.calls.said
            self._state = InText(may_think=False, may_be_call=False, keeps_blanks=False)
            return
        self._go_back(state)
        while self._rest and self._step():
            pass

    def _go_back(self, state: InBareCall) -> None:
        """It is text, after all."""
        self._state = state.before
        self._state.is_tried = True
        self._rest = state.unsaid + self._rest
