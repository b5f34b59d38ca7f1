"""Arguments that are not JSON, read letter by letter and told as the JSON object that they mean.

A text is told while it is written. Any other value is told when it is whole, and as a text where it is no value.
"""

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from pensieve.dialects.dialect import ParameterForm, Schema
from pensieve.dialects.values import is_text, properties
from pensieve.reply.json_text import is_json
from pensieve.reply.letters import Reading, after_blanks, loosened, one_of, text_until, up_to

# Longer than any key with what stands around it.
MAX_KEY_LETTERS = 512

_KEY = r"(?P<key>[^<>=:\"'(){},\s]+)"
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_BARE_KEY = re.compile(r"([{,]\s*)([\w.$\-]+)\s*:")


@dataclass(frozen=True, slots=True)
class ArgumentReader:
    """Reads a call's arguments. end: what stands behind them. schema: what the tool takes. say: takes pieces of JSON."""

    form: ParameterForm
    end: str
    schema: Schema
    say: Callable[[str], None]

    def read(self, first: str | None) -> Reading[None]:
        """All of them and what stands behind them. first: a letter that was read already."""
        self.say("{")
        separator = self.form.separator.strip()
        before = ""
        following = yield from after_blanks(first)
        while (key := (yield from self._key(following))) is not None:
            self.say(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            before = ", "
            following = yield from after_blanks((yield from self._value(key)))
            if separator and following == separator:
                following = yield from after_blanks()
        self.say("}")

    def _key(self, first: str) -> Reading[str | None]:
        """The next key; None where the arguments end instead."""
        before = loosened(self.form.before_key.strip())
        after = loosened(self.form.after_key.strip())
        either = re.compile(rf"{before}{_KEY}\s*{after}|{re.escape(self.end)}")
        return (yield from up_to(either, most=MAX_KEY_LETTERS, read=first))["key"]

    def _value(self, key: str) -> Reading[str | None]:
        """One value; gives back the letter behind it, where that had to be read."""
        quote = self.form.quote
        if quote is None:
            yield from self._tagged(properties(self.schema).get(key))
            return None
        first = yield from after_blanks()
        if quote == '"' and first in "\"'":
            yield from self._python_text(first)
            return None
        if quote != '"' and quote.startswith(first):
            yield from one_of([quote], first)
            self.say('"')
            yield from text_until(quote, self._say_letter)
            self.say('"')
            return None
        written, following = yield from _up_to_its_end(quote, first)
        self.say(_meant(written) if quote == '"' else _meant_with(quote, written))
        return following

    def _tagged(self, part: Schema | None) -> Reading[None]:
        """A value between tags. A line break that the form has behind the first tag is not part of it."""
        first = yield
        if self.form.after_key.endswith("\n") and first == "\n":
            first = ""
        if part is not None and is_text(part, self.schema):
            self.say('"')
            yield from text_until(self.form.after_value.rstrip(), self._say_letter, first)
            self.say('"')
            return
        written: list[str] = []
        yield from text_until(self.form.after_value.rstrip(), written.append, first)
        self.say(_meant("".join(written)))

    def _say_letter(self, letter: str) -> None:
        self.say(json.dumps(letter, ensure_ascii=False)[1:-1])

    def _python_text(self, quote: str) -> Reading[None]:
        self.say('"')
        while (letter := (yield)) != quote:
            if letter == "\\":
                self.say((yield from _escape()))
            else:
                self._say_letter(letter)
        self.say('"')


def _escape() -> Reading[str]:
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
    written = json.dumps(letter, ensure_ascii=False)[1:-1]
    return written if letter == "'" else "\\\\" + written


def _up_to_its_end(quote: str, first: str) -> Reading[tuple[str, str]]:
    """A value that is no text, as written, and the comma or bracket behind it."""
    written, closers, is_in_text, letter = "", "", False, first
    while is_in_text or closers or letter not in ",)}]":
        written += letter
        if written.endswith(quote) and not written.endswith("\\" + quote):
            is_in_text = not is_in_text
        elif not is_in_text and letter in _PAIRS:
            closers += _PAIRS[letter]
        elif not is_in_text and closers.endswith(letter):
            closers = closers[:-1]
        letter = yield
    return written, letter


def _meant(written: str) -> str:
    """JSON for what may be JSON, or a value as Python writes it, or else a text."""
    text = written.strip()
    if is_json(text):
        return text
    try:
        return json.dumps(ast.literal_eval(text), ensure_ascii=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return json.dumps(written, ensure_ascii=False)


def _meant_with(quote: str, written: str) -> str:
    """JSON for a value whose texts stand between `quote`s and whose keys stand bare."""
    parts = written.split(quote)
    parts[::2] = [_BARE_KEY.sub(r'\1"\2":', part) for part in parts[::2]]
    parts[1::2] = [json.dumps(part, ensure_ascii=False) for part in parts[1::2]]
    joined = "".join(parts).strip()
    return joined if is_json(joined) else json.dumps(written, ensure_ascii=False)
