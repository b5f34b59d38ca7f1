"""Values whose texts stand between marks of the form's own and whose keys stand bare, read letter by letter as JSON."""

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
from pensieve.reply.json_prefix import MAX_DEPTH, checked_json, json_text

MAX_KEY_CHARS = 512
_ENDS = ",)}]"


@dataclass(frozen=True, slots=True)
class NestedValueParser:
    """say: takes pieces of JSON."""

    form: ParameterForm
    say: Callable[[str], None]

    def value(self, first: str, depth: int = 2) -> CharParser[str | None]:
        """One value; gives back the letter behind it, where that had to be read. depth: of what it holds, in the input."""
        if depth > MAX_DEPTH:
            raise UnexpectedError
        if first == "{":
            yield from self._members("}", depth)
        elif first == "[":
            yield from self._members("]", depth)
        elif first == '"':
            return (yield from json_value(self.say, first))
        elif (self.form.quote or "").startswith(first):
            yield from self._text(first)
        else:
            return (yield from self._scalar(first))
        return None

    def _members(self, end: str, depth: int) -> CharParser[None]:
        """What is between brackets, from behind the first one to the last."""
        self.say("{" if end == "}" else "[")
        following = yield from next_non_blank()
        before = ""
        while following != end:
            self.say(before)
            if end == "}":
                yield from self._key(following)
                following = yield from next_non_blank()
            after = yield from self.value(following, depth + 1)
            following = yield from next_non_blank(after)
            if following == ",":
                following = yield from next_non_blank()
            elif following != end:
                raise UnexpectedError
            before = ", "
        self.say(end)

    def _key(self, first: str) -> CharParser[None]:
        """A key and the colon behind it. Some models write it as a text."""
        if first == '"' or (self.form.quote or "").startswith(first):
            yield from self.value(first)
            yield from one_of([self.form.after_key])
        else:
            written = re.compile(rf"(?P<key>{name_pattern(self.form)})\s*:")
            found = yield from up_to(written, most=MAX_KEY_CHARS, read=first)
            self.say(json_text(read_name(self.form, found["key"])))
        self.say(": ")

    def _text(self, first: str) -> CharParser[None]:
        quote = self.form.quote or ""
        yield from one_of([quote], first)
        self.say('"')
        yield from text_until(quote, lambda letter: self.say(json_text(letter)[1:-1]))
        self.say('"')

    def _scalar(self, first: str) -> CharParser[str]:
        written, letter = "", first
        while letter not in _ENDS:
            written += letter
            letter = yield
        self.say(meant(written))
        return letter


def meant(written: str) -> str:
    """JSON for what may be JSON, or a value as Python writes it, or else a text."""
    if (checked := checked_json(written)) is not None:
        return checked
    try:
        value = ast.literal_eval(written.strip())
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return json_text(written)
