"""Tool calls read letter by letter behind the mark that opened them, in whatever form the dialect writes them.

A call is told as soon as its name is known, its input as it comes. What stands inside a JSON text is never a mark.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pensieve.dialects.dialect import HOLES, CallForm, Schema
from pensieve.dialects.grammar.schema_simplifier import held_schema
from pensieve.dialects.grammar.tagged_values import tagged_values_of
from pensieve.reply.argument_parser import ArgumentParser
from pensieve.reply.char_parser import (
    CharParser,
    UnexpectedError,
    json_value,
    loosened,
    next_non_blank,
    one_of,
    up_to,
)
from pensieve.reply.json_prefix import BLANKS, checked_json
from pensieve.reply.parse_events import ParseEvent, ToolCallDelta, ToolCallEnd, ToolCallStart

# Longer than any name with what stands around it.
MAX_HEAD_CHARS = 512
# Longer than what may follow a known name in a head: text that only begins like one is not held back.
MAX_BARE_HEAD_CHARS = 96
_NAME = r"(?P<name>[\w.\-]+)"
_KEYS = ("name", "arguments")
_BEHIND_NAME = r"(?P<first>[^\w.\-\s])"


@dataclass(frozen=True, slots=True)
class ToolCallParser:
    """Reads calls of one form. tools: the schemas of the tools at hand, by name. say: takes what is read, in order."""

    form: CallForm
    tools: Mapping[str, Schema]
    say: Callable[[ParseEvent], None]

    def section(self) -> CharParser[None]:
        """What follows an opening mark, up to its closing mark."""
        form = self.form
        if before := form.inside[0].strip():
            yield from one_of([before])
        closing = (form.inside[1] + form.closing).strip()
        begun = ""
        while True:
            yield from self._call(begun)
            if form.separator is None:
                if closing:
                    yield from one_of([closing])
                return
            more = form.separator.strip() or form.before_name.strip()
            if (yield from one_of([more, closing])) == closing:
                return
            begun = "" if form.separator.strip() else more

    def alone(self) -> CharParser[None]:
        """A call of one of the tools without any mark, from the answer's first letter on."""
        assert self.form.keys is not None
        call = _JsonCall(self.form.keys, self._say_known, is_strict=True)
        yield from call.read((yield from next_non_blank()))

    def bare_beginnings(self) -> list[str]:
        """Return what begins a call without its marks: JSON in every family, and the family's own form."""
        form = self.form
        if opening := form.inside[0].strip():
            return ["{", opening]
        if form.keys is not None:
            return ["{"]
        return ["{", *(form.before_name.strip() + name for name in self.tools)]

    def bare(self, begun: str) -> CharParser[None]:
        """Read a call, or a list of calls, after one of `bare_beginnings`."""
        if begun == "{":
            yield from self._bare_json(begun)
        elif begun == self.form.inside[0].strip():
            yield from self._bare_list()
        else:
            yield from self._call(begun, most=len(begun) + MAX_BARE_HEAD_CHARS)

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
        call = _JsonCall(self.form.keys or _KEYS, self.say, is_strict=True)
        yield from call.read(first)
        if not call.has_arguments:
            raise UnexpectedError

    def _say_known(self, said: ParseEvent) -> None:
        if isinstance(said, ToolCallStart) and said.name not in self.tools:
            raise UnexpectedError
        self.say(said)

    def _call(self, begun: str, *, most: int = MAX_HEAD_CHARS) -> CharParser[None]:
        form = self.form
        if form.keys is not None:
            yield from _JsonCall(form.keys, self.say).read((yield from next_non_blank()))
            return
        name, first = yield from self._head(begun, most)
        self.say(ToolCallStart(name))
        if form.parameters is not None:
            end = form.after_arguments.strip()
            slots = tagged_values_of(held_schema(self.tools.get(name, {})), form.parameters)
            yield from ArgumentParser(form.parameters, end, slots, self._say_input).read(first)
            self.say(ToolCallEnd())
            return
        yield from _object(self._say_input, (yield from next_non_blank(first)))
        self.say(ToolCallEnd())
        if after := form.after_arguments.strip():
            yield from one_of([after])

    def _head(self, begun: str, most: int) -> CharParser[tuple[str, str | None]]:
        """Up to where the arguments begin: the tool's name, and the arguments' first letter where it had to be read."""
        after = loosened(self.form.after_name.strip())
        for hole in HOLES:
            after = after.replace(re.escape(hole), r"\w+")
        before = loosened(self.form.before_name.strip())
        head = re.compile(rf"\s*{before}\s*{_NAME}\s*{after or _BEHIND_NAME}", re.DOTALL)
        found = yield from up_to(head, most=most, read=begun)
        return found["name"], None if after else found["first"]

    def _say_input(self, text: str) -> None:
        if text:
            self.say(ToolCallDelta(text))


class _JsonCall:
    """A call as one JSON object, its keys in any order. is_strict: with no other keys than these two and an id."""

    def __init__(
        self, keys: tuple[str, str], say: Callable[[ParseEvent], None], *, is_strict: bool = False
    ) -> None:
        self._name_key = keys[0]
        self._argument_keys = {keys[1], "arguments", "parameters"}
        self._say = say
        self._is_strict = is_strict
        self._is_named = False
        self.has_arguments = False
        self._held: list[str] = []

    def read(self, first: str) -> CharParser[None]:
        """From the object's first letter to its last."""
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
            self._say(ToolCallDelta("{}"))
        self._say(ToolCallEnd())

    def _member(self, first: str) -> CharParser[str]:
        """A key and its value; gives back the first letter behind them."""
        key = yield from _text(first)
        if (yield from next_non_blank()) != ":":
            raise UnexpectedError
        first = yield from next_non_blank()
        if key == self._name_key and not self._is_named:
            self._name((yield from _text(first)))
        elif key in self._argument_keys and not self.has_arguments:
            yield from self._arguments(first)
        elif self._is_strict and key != "id":
            raise UnexpectedError
        else:
            return (yield from next_non_blank((yield from json_value(_to_nobody, first))))
        return (yield from next_non_blank())

    def _name(self, name: str) -> None:
        if not name:
            raise UnexpectedError
        self._is_named = True
        self._say(ToolCallStart(name))
        for text in self._held:
            self._say(ToolCallDelta(text))

    def _arguments(self, first: str) -> CharParser[None]:
        """An object. Some models write it once more into a text."""
        self.has_arguments = True
        if first == '"':
            self._input(_object_in((yield from _text(first))))
        else:
            yield from _object(self._input, first)

    def _input(self, text: str) -> None:
        if not text:
            return
        if self._is_named:
            self._say(ToolCallDelta(text))
        else:
            self._held.append(text)


def _text(first: str) -> CharParser[str]:
    """A JSON text, as what it says."""
    if first != '"':
        raise UnexpectedError
    written: list[str] = []
    yield from json_value(written.append, first)
    return json.loads("".join(written))


def _object(say: Callable[[str], None], first: str) -> CharParser[None]:
    """A JSON object: what begins no object is no input, whatever else it is."""
    if first != "{":
        raise UnexpectedError
    yield from json_value(say, first)


def _object_in(text: str) -> str:
    """The JSON object that a text is."""
    written = checked_json(text) if text.lstrip(BLANKS).startswith("{") else None
    if written is None:
        raise UnexpectedError
    return written


def _to_nobody(_: str) -> None:
    """For what is not passed on."""
