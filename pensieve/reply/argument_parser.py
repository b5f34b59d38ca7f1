"""Arguments that are not JSON, read letter by letter and told as the JSON object that they mean.

A text is told while it is written. Any other value is told when it is whole, and as a text where it is no value.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from pensieve.dialects.dialect import ParameterForm
from pensieve.dialects.grammar.tagged_values import TaggedValue, TaggedValues
from pensieve.dialects.parameter_names import name_pattern, read_name
from pensieve.reply.char_parser import CharParser, loosened, next_non_blank, text_until, up_to
from pensieve.reply.json_prefix import JsonPrefix, NotJsonError, checked_json, json_text
from pensieve.reply.nested_values import NestedValueParser, meant

# Longer than any key with what stands around it.
MAX_KEY_CHARS = 512

_PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class ArgumentParser:
    """Reads a call's arguments. end: what stands behind them. slots: of the tool's parameters. say: takes pieces of JSON."""

    form: ParameterForm
    end: str
    slots: TaggedValues
    say: Callable[[str], None]

    def read(self, first: str | None) -> CharParser[None]:
        """All of them and what stands behind them. first: a letter that was read already."""
        self.say("{")
        separator = self.form.separator.strip()
        before = ""
        following = yield from next_non_blank(first)
        while (key := (yield from self._key(following))) is not None:
            self.say(f"{before}{json_text(key)}: ")
            before = ", "
            following = yield from next_non_blank((yield from self._value(key)))
            if separator and following == separator:
                following = yield from next_non_blank()
        self.say("}")

    def _key(self, first: str) -> CharParser[str | None]:
        """The next key; None where the arguments end instead."""
        before = loosened(self.form.before_key.strip())
        after = loosened(self.form.after_key.strip())
        name = name_pattern(self.form)
        either = re.compile(rf"{before}(?P<key>{name}|)\s*{after}|{re.escape(self.end)}")
        key = (yield from up_to(either, most=MAX_KEY_CHARS, read=first))["key"]
        return None if key is None else read_name(self.form, key)

    def _value(self, key: str) -> CharParser[str | None]:
        """One value; gives back the letter behind it, where that had to be read."""
        quote = self.form.quote
        if quote is None:
            yield from self._tagged(self.slots.of(key))
            return None
        first = yield from next_non_blank()
        if quote != '"':
            return (yield from NestedValueParser(self.form, self.say).value(first))
        if first in "\"'":
            yield from self._python_text(first)
            return None
        written, following = yield from _up_to_its_end(first)
        self.say(meant(written))
        return following

    def _tagged(self, slot: TaggedValue) -> CharParser[None]:
        """A value between tags. A line break that the form has behind the first tag is not part of it."""
        first = yield
        if self.form.after_key.endswith("\n") and first == "\n":
            first = yield
        end = self.form.after_value.rstrip()
        if slot.is_text and first != '"':  # with a quote it may be JSON
            self.say('"')
            yield from text_until(end, self._say_letter, first)
            self.say('"')
        elif slot.is_value:
            self.say(meant((yield from _json_until(end, first))))
        elif first in slot.may_be_json:
            self.say(_in_slot(slot, (yield from _json_until(end, first))))
        else:
            written: list[str] = []
            yield from text_until(end, written.append, first)
            self.say(_in_slot(slot, "".join(written)))

    def _say_letter(self, letter: str) -> None:
        self.say(json_text(letter)[1:-1])

    def _python_text(self, quote: str) -> CharParser[None]:
        self.say('"')
        while (letter := (yield)) != quote:
            if letter == "\\":
                self.say((yield from _escape()))
            else:
                self._say_letter(letter)
        self.say('"')


def _escape() -> CharParser[str]:
    """What stands behind a backslash, as JSON escapes it. Numbers of characters are those of JSON, or two digits."""
    letter = yield
    if letter == "\n":
        return ""
    if letter in "ux":
        digits = ""
        while len(digits) < (4 if letter == "u" else 2):
            digits += yield
        is_number = all(digit in "0123456789abcdefABCDEF" for digit in digits)
        return f"\\u{digits:0>4}" if is_number else f"\\\\{letter}{digits}"
    if letter in '"\\/bfnrt':
        return "\\" + letter
    written = json_text(letter)[1:-1]
    return written if letter == "'" else "\\\\" + written


def _up_to_its_end(first: str) -> CharParser[tuple[str, str]]:
    """A value that is no text, as written, and the comma or bracket behind it."""
    written, closers, quote, letter = "", "", "", first
    while quote or closers or letter not in ",)}]":
        written += letter
        if quote and letter == "\\":
            written += yield
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in _PAIRS:
            closers += _PAIRS[letter]
        elif closers.endswith(letter):
            closers = closers[:-1]
        letter = yield
    return written, letter


def _json_until(end: str, first: str) -> CharParser[str]:
    """What stands before `end`, which does not count inside of a JSON text."""
    value = JsonPrefix()
    written, letter = "", first
    while True:
        try:
            is_taken = value.take(letter) is not None
        except NotJsonError:
            break
        if not is_taken:
            break
        written += letter
        if value.is_complete:
            letter = ""
            break
        letter = yield
    rest: list[str] = []
    yield from text_until(end, rest.append, letter)
    return written + "".join(rest)


def _in_slot(slot: TaggedValue, written: str) -> str:
    """JSON for what is a text or another value."""
    value = slot.read(written)
    if isinstance(value, str):
        return json_text(value)
    return checked_json(written) or json_text(written)
