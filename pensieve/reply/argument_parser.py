"""Convert arguments that are not JSON to a JSON object, one character at a time.

A text is emitted while it arrives, any other value when it is complete. What is no valid value
becomes a text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from pensieve.dialects.dialect import ParameterForm
from pensieve.dialects.grammar.tagged_values import TaggedValue, TaggedValues
from pensieve.dialects.parameter_names import name_pattern, read_name
from pensieve.reply.char_parser import CharParser, blank_tolerant, next_non_blank, text_until, up_to
from pensieve.reply.json_prefix import JsonPrefix, NotJsonError, json_string, normalize_json
from pensieve.reply.nested_values import NestedValueParser, json_from_literal

# Longer than any key with its delimiters.
MAX_KEY_CHARS = 512

_PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class ArgumentParser:
    form: ParameterForm
    end: str  # follows the arguments
    slots: TaggedValues  # of the tool's parameters
    emit: Callable[[str], None]  # takes pieces of JSON

    def parse(self, first: str | None) -> CharParser[None]:
        """Parse all arguments and the end. `first` is a character that was read already."""
        self.emit("{")
        separator = self.form.separator.strip()
        before = ""
        following = yield from next_non_blank(first)
        while (key := (yield from self._key(following))) is not None:
            self.emit(f"{before}{json_string(key)}: ")
            before = ", "
            following = yield from next_non_blank((yield from self._value(key)))
            if separator and following == separator:
                following = yield from next_non_blank()
        self.emit("}")

    def _key(self, first: str) -> CharParser[str | None]:
        """Return the next key, or None at the end of the arguments."""
        before = blank_tolerant(self.form.before_key.strip())
        after = blank_tolerant(self.form.after_key.strip())
        name = name_pattern(self.form)
        either = re.compile(rf"{before}(?P<key>{name}|)\s*{after}|{re.escape(self.end)}")
        key = (yield from up_to(either, max_chars=MAX_KEY_CHARS, read=first))["key"]
        return None if key is None else read_name(self.form, key)

    def _value(self, key: str) -> CharParser[str | None]:
        """Parse a value; return the character after it if it was read."""
        quote = self.form.quote
        if quote is None:
            yield from self._tagged(self.slots.of(key))
            return None
        first = yield from next_non_blank()
        if quote != '"':
            return (yield from NestedValueParser(self.form, self.emit).parse(first))
        if first in "\"'":
            yield from self._python_string(first)
            return None
        written, following = yield from _unquoted_value(first)
        self.emit(json_from_literal(written))
        return following

    def _tagged(self, slot: TaggedValue) -> CharParser[None]:
        """Parse a value between tags, without the line break that the form has after the first."""
        first = yield
        if self.form.after_key.endswith("\n") and first == "\n":
            first = yield
        end = self.form.after_value.rstrip()
        if slot.is_text and first != '"':  # with a quote it may be JSON
            self.emit('"')
            yield from text_until(end, self._emit_char, first)
            self.emit('"')
        elif slot.is_value:
            self.emit(json_from_literal((yield from _json_until(end, first))))
        elif first in slot.may_be_json:
            self.emit(_json_for_slot(slot, (yield from _json_until(end, first))))
        else:
            written: list[str] = []
            yield from text_until(end, written.append, first)
            self.emit(_json_for_slot(slot, "".join(written)))

    def _emit_char(self, char: str) -> None:
        self.emit(json_string(char)[1:-1])

    def _python_string(self, quote: str) -> CharParser[None]:
        self.emit('"')
        while (char := (yield)) != quote:
            if char == "\\":
                self.emit((yield from _escape()))
            else:
                self._emit_char(char)
        self.emit('"')


def _escape() -> CharParser[str]:
    """Return the JSON escape for what follows a backslash; Python's `\\x` becomes `\\u00`."""
    char = yield
    if char == "\n":
        return ""
    if char in "ux":
        digits = ""
        while len(digits) < (4 if char == "u" else 2):
            digits += yield
        is_number = all(digit in "0123456789abcdefABCDEF" for digit in digits)
        return f"\\u{digits:0>4}" if is_number else f"\\\\{char}{digits}"
    if char in '"\\/bfnrt':
        return "\\" + char
    written = json_string(char)[1:-1]
    return written if char == "'" else "\\\\" + written


def _unquoted_value(first: str) -> CharParser[tuple[str, str]]:
    """Return an unquoted value as written, and the comma or bracket after it."""
    written, closers, quote, char = "", "", "", first
    while quote or closers or char not in ",)}]":
        written += char
        if quote and char == "\\":
            written += yield
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in _PAIRS:
            closers += _PAIRS[char]
        elif closers.endswith(char):
            closers = closers[:-1]
        char = yield
    return written, char


def _json_until(end: str, first: str) -> CharParser[str]:
    """Return what precedes `end`, ignoring any `end` inside a JSON string."""
    value = JsonPrefix()
    written, char = "", first
    while True:
        try:
            is_part = value.feed(char) is not None
        except NotJsonError:
            break
        if not is_part:
            break
        written += char
        if value.is_complete:
            char = ""
            break
        char = yield
    rest: list[str] = []
    yield from text_until(end, rest.append, char)
    return written + "".join(rest)


def _json_for_slot(slot: TaggedValue, written: str) -> str:
    value = slot.read(written)
    if isinstance(value, str):
        return json_string(value)
    return normalize_json(written) or json_string(written)
