"""Convert values with a family's own string quotes and unquoted keys to JSON, as they arrive."""

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from pensieve.dialects.dialect import ParameterForm
from pensieve.dialects.parameter_names import name_pattern, read_name
from pensieve.reply.char_parser import (
    CharParser,
    UnexpectedError,
    json_value,
    next_non_blank,
    one_of,
    text_until,
    up_to,
)
from pensieve.reply.json_prefix import MAX_DEPTH, json_string, normalize_json

MAX_KEY_CHARS = 512
_ENDS = ",)}]"


@dataclass(frozen=True, slots=True)
class NestedValueParser:
    form: ParameterForm
    emit: Callable[[str], None]  # takes pieces of JSON

    def parse(self, first: str, depth: int = 2) -> CharParser[str | None]:
        """Parse a value at nesting level `depth`; return the character after it if it was read."""
        if depth > MAX_DEPTH:
            raise UnexpectedError
        if first == "{":
            yield from self._members("}", depth)
        elif first == "[":
            yield from self._members("]", depth)
        elif first == '"':
            return (yield from json_value(self.emit, first))
        elif (self.form.quote or "").startswith(first):
            yield from self._string(first)
        else:
            return (yield from self._scalar(first))
        return None

    def _members(self, end: str, depth: int) -> CharParser[None]:
        """Parse from after the opening bracket through the closing one."""
        self.emit("{" if end == "}" else "[")
        following = yield from next_non_blank()
        before = ""
        while following != end:
            self.emit(before)
            if end == "}":
                yield from self._key(following)
                following = yield from next_non_blank()
            after = yield from self.parse(following, depth + 1)
            following = yield from next_non_blank(after)
            if following == ",":
                following = yield from next_non_blank()
            elif following != end:
                raise UnexpectedError
            before = ", "
        self.emit(end)

    def _key(self, first: str) -> CharParser[None]:
        """Parse a key and its colon. Some models quote the key."""
        if first == '"' or (self.form.quote or "").startswith(first):
            yield from self.parse(first)
            yield from one_of([self.form.after_key])
        else:
            written = re.compile(rf"(?P<key>{name_pattern(self.form)})\s*:")
            match = yield from up_to(written, max_chars=MAX_KEY_CHARS, read=first)
            self.emit(json_string(read_name(self.form, match["key"])))
        self.emit(": ")

    def _string(self, first: str) -> CharParser[None]:
        quote = self.form.quote or ""
        yield from one_of([quote], first)
        self.emit('"')
        yield from text_until(quote, lambda char: self.emit(json_string(char)[1:-1]))
        self.emit('"')

    def _scalar(self, first: str) -> CharParser[str]:
        written, char = "", first
        while char not in _ENDS:
            written += char
            char = yield
        self.emit(json_from_literal(written))
        return char


def json_from_literal(written: str) -> str:
    """Return JSON for `written`: JSON, a Python literal, or else a plain text."""
    if (value_json := normalize_json(written)) is not None:
        return value_json
    try:
        value = ast.literal_eval(written.strip())
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return json_string(written)
