"""Parse calls without marks at the end of an answer; used by the answer parser.

Such calls are JSON objects or have the family's own form, each alone or several in a fence. They
count only if nothing follows them, so their events are available only when the answer ends: until
then they may be an example.
"""

import json
import re
from collections.abc import Mapping, Sequence

from pensieve.dialects.dialect import CallForm, Schema
from pensieve.dialects.grammar.schema_validation import admits
from pensieve.reply.char_parser import CharParser, UnexpectedError, next_non_blank, one_of, up_to
from pensieve.reply.parse_events import ParseEvent, ToolCallDelta, ToolCallEnd, ToolCallStart
from pensieve.reply.tool_call_parser import ToolCallParser

_FENCE = "```"
_INFO = re.compile(r"[\w+.-]*[ \t]*\n")
_MAX_INFO_CHARS = 24


class BareCallParser:
    """Parses from the first character of a possible call to the end of the answer.

    Accepts at most `max_calls` calls, each of one of `tools` and with an input that its schema
    admits.
    """

    def __init__(
        self,
        form: CallForm,
        tools: Mapping[str, Schema],
        max_calls: int,
        *,
        is_after_call: bool,  # a separator of calls may come first
    ) -> None:
        self._tools = tools
        self._max_calls = max_calls
        self._is_after_call = is_after_call
        self._events: list[ParseEvent] = []
        self._checked = 0  # events in `_events` of calls that have been validated
        self._is_whole = False
        self._calls = ToolCallParser(form, tools, self._events.append)
        self._beginnings = [_FENCE, *self._calls.bare_beginnings()]
        # Models that leave out the mark before a call often write the one after it.
        separators = (form.closing.strip(), (form.separator or "").strip(), form.between.strip())
        self._separators = [part for part in dict.fromkeys(separators) if part]
        is_ended_by_mark = form.keys is None and not form.closing
        self._last_mark = form.after_arguments.strip() if is_ended_by_mark else ""

    @property
    def first_chars(self) -> frozenset[str]:
        """Return the characters that such calls may begin with."""
        separators = self._separators if self._is_after_call else ()
        return frozenset(literal[0] for literal in (*self._beginnings, *separators))

    @property
    def events(self) -> list[ParseEvent]:
        """Return the calls' events; nothing unless the text up to here is complete calls."""
        return self._events if self._is_whole else []

    def parse(self) -> CharParser[None]:
        """Never returns. Raises `UnexpectedError` at the first character of something else."""
        if self._is_after_call:
            beginning = yield from self._next(is_outside=False)
        else:
            beginning = yield from one_of(self._beginnings)
        while True:
            if beginning == _FENCE:
                yield from self._in_fence()
            else:
                yield from self._call(beginning)
            beginning = yield from self._next(is_outside=True)

    def finish(self, parser: CharParser[None]) -> None:
        """Supply the mark that ends the last call, if the answer lacks only that."""
        has_begun = len(self._events) > self._checked
        try:
            for char in self._last_mark if has_begun and not self._is_whole else "":
                parser.send(char)
        except UnexpectedError:
            return

    def _in_fence(self) -> CharParser[None]:
        yield from up_to(_INFO, max_chars=_MAX_INFO_CHARS)
        beginning = yield from one_of(self._beginnings)
        while True:
            yield from self._call(beginning)
            if (beginning := (yield from self._next(is_outside=False))) == _FENCE:
                return

    def _next(self, *, is_outside: bool) -> CharParser[str]:
        """Parse the separator of two calls and the beginning of the next one; return that."""
        beginning = ""
        while not beginning or beginning in self._separators:
            self._is_whole = is_outside
            first = yield from next_non_blank()
            self._is_whole = False
            beginning = yield from one_of([*self._separators, *self._beginnings], first)
        return beginning

    def _call(self, beginning: str) -> CharParser[None]:
        """Parse a call, or a list of calls. Raises `UnexpectedError` if it is invalid."""
        if beginning == _FENCE:
            raise UnexpectedError
        yield from self._calls.parse_bare(beginning)
        events = self._events[self._checked :]
        ends = [index for index, event in enumerate(events) if isinstance(event, ToolCallEnd)]
        starts = [0, *(end + 1 for end in ends)]
        if not all(
            self._is_valid(events[start:end]) for start, end in zip(starts, ends, strict=False)
        ):
            raise UnexpectedError
        self._checked = len(self._events)
        if sum(isinstance(event, ToolCallStart) for event in self._events) > self._max_calls:
            raise UnexpectedError

    def _is_valid(self, call: Sequence[ParseEvent]) -> bool:
        """Check name and input of a call, given without its `ToolCallEnd`."""
        start, *deltas = call
        if not isinstance(start, ToolCallStart) or start.name not in self._tools:
            return False
        schema = self._tools[start.name]
        arguments = json.loads(
            "".join(delta.json for delta in deltas if isinstance(delta, ToolCallDelta))
        )
        return admits(schema, arguments, schema)
