"""Calls without their marks: what ends an answer and is exactly one or more calls of the tools at hand.

The calls are JSON objects or have the family's own form, each alone or several in a fence. They are
told only when the answer ends: until then they may be an example.
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
    """Reads from the first character of what may be such calls to the end of the answer.

    Only a call of one of `tools`, with an input that its schema admits, is one; more than
    `max_calls` are none. is_after_call: what may stand between two calls may come first.
    """

    def __init__(
        self,
        form: CallForm,
        tools: Mapping[str, Schema],
        max_calls: int,
        *,
        is_after_call: bool = False,
    ) -> None:
        self._tools = tools
        self._max_calls = max_calls
        self._is_after_call = is_after_call
        self._said: list[ParseEvent] = []
        self._checked = 0  # pieces of `_said` that belong to calls which the tools take
        self._is_whole = False
        self._calls = ToolCallParser(form, tools, self._said.append)
        self._beginnings = [_FENCE, *self._calls.bare_beginnings()]
        # Models that leave out the mark before a call often write the one after it.
        between = (form.closing.strip(), (form.separator or "").strip(), form.between.strip())
        self._between = [part for part in dict.fromkeys(between) if part]
        is_ended_by_mark = form.keys is None and not form.closing
        self._last_mark = form.after_arguments.strip() if is_ended_by_mark else ""

    @property
    def first_chars(self) -> frozenset[str]:
        """Return the characters that such calls may begin with."""
        between = self._between if self._is_after_call else ()
        return frozenset(one[0] for one in (*self._beginnings, *between))

    @property
    def said(self) -> list[ParseEvent]:
        """Return the calls; nothing if the text up to here is something else."""
        return self._said if self._is_whole else []

    def read(self) -> CharParser[None]:
        """Never returns. Raises `UnexpectedError` at the first character of something else."""
        if self._is_after_call:
            begun = yield from self._next(is_outside=False)
        else:
            begun = yield from one_of(self._beginnings)
        while True:
            if begun == _FENCE:
                yield from self._in_fence()
            else:
                yield from self._call(begun)
            begun = yield from self._next(is_outside=True)

    def finish(self, reading: CharParser[None]) -> None:
        """Supply the mark that ends the last call, if the answer lacks only that."""
        has_begun = len(self._said) > self._checked
        try:
            for char in self._last_mark if has_begun and not self._is_whole else "":
                reading.send(char)
        except UnexpectedError:
            return

    def _in_fence(self) -> CharParser[None]:
        yield from up_to(_INFO, most=_MAX_INFO_CHARS)
        begun = yield from one_of(self._beginnings)
        while True:
            yield from self._call(begun)
            if (begun := (yield from self._next(is_outside=False))) == _FENCE:
                return

    def _next(self, *, is_outside: bool) -> CharParser[str]:
        """Read what may stand between calls, and the beginning of the next one."""
        begun = ""
        while not begun or begun in self._between:
            self._is_whole = is_outside
            first = yield from next_non_blank()
            self._is_whole = False
            begun = yield from one_of([*self._between, *self._beginnings], first)
        return begun

    def _call(self, begun: str) -> CharParser[None]:
        """Read a call, or a list of calls. Raises `UnexpectedError` unless the tools take them."""
        if begun == _FENCE:
            raise UnexpectedError
        yield from self._calls.bare(begun)
        said = self._said[self._checked :]
        ends = [at for at, one in enumerate(said) if isinstance(one, ToolCallEnd)]
        starts = [0, *(end + 1 for end in ends)]
        if not all(
            self._is_taken(said[start:end]) for start, end in zip(starts, ends, strict=False)
        ):
            raise UnexpectedError
        self._checked = len(self._said)
        if sum(isinstance(one, ToolCallStart) for one in self._said) > self._max_calls:
            raise UnexpectedError

    def _is_taken(self, call: Sequence[ParseEvent]) -> bool:
        """Whether one of the tools takes a call, given without its end."""
        began, *inputs = call
        if not isinstance(began, ToolCallStart) or began.name not in self._tools:
            return False
        schema = self._tools[began.name]
        given = json.loads("".join(one.json for one in inputs if isinstance(one, ToolCallDelta)))
        return admits(schema, given, schema)
