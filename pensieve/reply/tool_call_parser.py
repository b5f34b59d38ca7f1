"""Parse tool calls one character at a time, in the form of the dialect; used by the answer parser.

A call starts as soon as its name is known, and its input is emitted as it arrives. A mark inside a
JSON string does not count.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pensieve.dialects.dialect import HOLES, CallForm, Schema
from pensieve.dialects.grammar.schema_simplifier import arguments_schema
from pensieve.dialects.grammar.tagged_values import tagged_values_of
from pensieve.reply.argument_parser import ArgumentParser
from pensieve.reply.char_parser import (
    CharParser,
    UnexpectedError,
    blank_tolerant,
    json_value,
    next_non_blank,
    one_of,
    up_to,
)
from pensieve.reply.json_prefix import BLANKS, normalize_json
from pensieve.reply.parse_events import ParseEvent, ToolCallDelta, ToolCallEnd, ToolCallStart

# Longer than any name with its delimiters.
MAX_HEAD_CHARS = 512
# Longer than what may follow a known name in a head: limits how much text that only resembles a
# call is delayed.
MAX_BARE_HEAD_CHARS = 96
_NAME = r"(?P<name>[\w.\-]+)"
_KEYS = ("name", "arguments")
_AFTER_NAME = r"(?P<first>[^\w.\-\s])"


@dataclass(frozen=True, slots=True)
class ToolCallParser:
    form: CallForm
    tools: Mapping[str, Schema]  # input schemas by tool name
    emit: Callable[[ParseEvent], None]

    def parse_section(self) -> CharParser[None]:
        """Parse the calls after an opening mark, through the closing mark."""
        form = self.form
        if before := form.inside[0].strip():
            yield from one_of([before])
        closing = (form.inside[1] + form.closing).strip()
        read = ""
        while True:
            yield from self._call(read)
            if form.separator is None:
                if closing:
                    yield from one_of([closing])
                return
            more = form.separator.strip() or form.before_name.strip()
            if (yield from one_of([more, closing])) == closing:
                return
            read = "" if form.separator.strip() else more

    def parse_unmarked(self) -> CharParser[None]:
        """Parse a call without marks that begins the answer. It must name one of the tools."""
        assert self.form.keys is not None
        call = _JsonCall(self.form.keys, self._emit_if_known, is_strict=True)
        yield from call.parse((yield from next_non_blank()))

    def bare_beginnings(self) -> list[str]:
        """Return what a call without marks may begin with: JSON, or the family's own form."""
        form = self.form
        if opening := form.inside[0].strip():
            return ["{", opening]
        if form.keys is not None:
            return ["{"]
        return ["{", *(form.before_name.strip() + name for name in self.tools)]

    def parse_bare(self, read: str) -> CharParser[None]:
        """Parse a call, or a list of calls, after one of `bare_beginnings`."""
        if read == "{":
            yield from self._bare_json(read)
        elif read == self.form.inside[0].strip():
            yield from self._bare_list()
        else:
            yield from self._call(read, max_chars=len(read) + MAX_BARE_HEAD_CHARS)

    def _bare_list(self) -> CharParser[None]:
        form = self.form
        closing, more = form.inside[1].strip(), (form.separator or "").strip()
        following = more
        while following != closing:
            if form.keys is None:
                yield from self._call("")
            else:
                yield from self._bare_json((yield from next_non_blank()))
            following = yield from one_of([more, closing])

    def _bare_json(self, first: str) -> CharParser[None]:
        call = _JsonCall(self.form.keys or _KEYS, self.emit, is_strict=True)
        yield from call.parse(first)
        if not call.has_arguments:
            raise UnexpectedError

    def _emit_if_known(self, event: ParseEvent) -> None:
        if isinstance(event, ToolCallStart) and event.name not in self.tools:
            raise UnexpectedError
        self.emit(event)

    def _call(self, read: str, *, max_chars: int = MAX_HEAD_CHARS) -> CharParser[None]:
        form = self.form
        if form.keys is not None:
            yield from _JsonCall(form.keys, self.emit).parse((yield from next_non_blank()))
            return
        name, first = yield from self._head(read, max_chars)
        self.emit(ToolCallStart(name))
        if form.parameters is not None:
            end = form.after_arguments.strip()
            slots = tagged_values_of(arguments_schema(self.tools.get(name, {})), form.parameters)
            yield from ArgumentParser(form.parameters, end, slots, self._emit_input).parse(first)
            self.emit(ToolCallEnd())
            return
        yield from _object(self._emit_input, (yield from next_non_blank(first)))
        self.emit(ToolCallEnd())
        if after := form.after_arguments.strip():
            yield from one_of([after])

    def _head(self, read: str, max_chars: int) -> CharParser[tuple[str, str | None]]:
        """Return the tool's name, and the arguments' first character if it was read."""
        after = blank_tolerant(self.form.after_name.strip())
        for hole in HOLES:
            after = after.replace(re.escape(hole), r"\w+")
        before = blank_tolerant(self.form.before_name.strip())
        head = re.compile(rf"\s*{before}\s*{_NAME}\s*{after or _AFTER_NAME}", re.DOTALL)
        match = yield from up_to(head, max_chars=max_chars, read=read)
        return match["name"], None if after else match["first"]

    def _emit_input(self, text: str) -> None:
        if text:
            self.emit(ToolCallDelta(text))


class _JsonCall:
    """A call written as one JSON object, with its keys in any order."""

    def __init__(
        self,
        keys: tuple[str, str],
        emit: Callable[[ParseEvent], None],
        *,
        is_strict: bool = False,  # accept no keys but name, arguments and id
    ) -> None:
        self._name_key = keys[0]
        self._argument_keys = {keys[1], "arguments", "parameters"}
        self._emit = emit
        self._is_strict = is_strict
        self._is_named = False
        self.has_arguments = False
        self._early_input: list[str] = []  # arguments that precede the name

    def parse(self, first: str) -> CharParser[None]:
        if first != "{":
            raise UnexpectedError
        following = yield from next_non_blank()
        while following != "}":
            following = yield from self._member(following)
            if following == ",":
                following = yield from next_non_blank()
            elif following != "}":
                raise UnexpectedError
        if not self._is_named:
            raise UnexpectedError
        if not self.has_arguments:
            self._emit(ToolCallDelta("{}"))
        self._emit(ToolCallEnd())

    def _member(self, first: str) -> CharParser[str]:
        """Parse a key and its value; return the next character that is not blank."""
        key = yield from _string(first)
        if (yield from next_non_blank()) != ":":
            raise UnexpectedError
        first = yield from next_non_blank()
        if key == self._name_key and not self._is_named:
            self._name((yield from _string(first)))
        elif key in self._argument_keys and not self.has_arguments:
            yield from self._arguments(first)
        elif self._is_strict and key != "id":
            raise UnexpectedError
        else:
            return (yield from next_non_blank((yield from json_value(_discard, first))))
        return (yield from next_non_blank())

    def _name(self, name: str) -> None:
        if not name:
            raise UnexpectedError
        self._is_named = True
        self._emit(ToolCallStart(name))
        for text in self._early_input:
            self._emit(ToolCallDelta(text))

    def _arguments(self, first: str) -> CharParser[None]:
        """Parse an object. Some models encode it a second time, as a string."""
        self.has_arguments = True
        if first == '"':
            self._emit_input(_decoded_object((yield from _string(first))))
        else:
            yield from _object(self._emit_input, first)

    def _emit_input(self, text: str) -> None:
        if not text:
            return
        if self._is_named:
            self._emit(ToolCallDelta(text))
        else:
            self._early_input.append(text)


def _string(first: str) -> CharParser[str]:
    if first != '"':
        raise UnexpectedError
    written: list[str] = []
    yield from json_value(written.append, first)
    return json.loads("".join(written))


def _object(emit: Callable[[str], None], first: str) -> CharParser[None]:
    if first != "{":
        raise UnexpectedError
    yield from json_value(emit, first)


def _decoded_object(text: str) -> str:
    written = normalize_json(text) if text.lstrip(BLANKS).startswith("{") else None
    if written is None:
        raise UnexpectedError
    return written


def _discard(_: str) -> None: ...
