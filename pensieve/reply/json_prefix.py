"""JSON checked letter by letter, so that what has been passed on is at any moment the beginning of a JSON value.

Where a model writes a line break or a tab into a text as it is, it becomes the escape that it should have been. Nested so
deep that the client can send it back in a conversation, whose own levels are around it; beyond that it is not JSON.
"""

import json
import re

BLANKS = " \t\r\n"
# A request may have 64 levels (api/json_body.py); messages and their blocks take five of them, of a batch three more.
MAX_DEPTH = 56
MAX_DIGITS = 400

_NUMBER_SO_FAR = re.compile(
    r"-?(?:0|[1-9][0-9]*)?(?:(?<=[0-9])\.[0-9]*)?(?:(?<=[0-9])[eE][+-]?[0-9]*)?"
)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS = ("true", "false", "null")
_NO_CHARACTER = r"\ufffd"
_HEX = "0123456789abcdefABCDEF"


class NotJsonError(ValueError):
    """No JSON value has such a letter here."""


class JsonPrefix:
    """Owns the state of one value. Give it letters until `is_complete`."""

    def __init__(self) -> None:
        self.is_complete = False
        self._closers: list[str] = []
        self._high = ""
        self._take = self._value

    def take(self, letter: str) -> str | None:
        """What is passed on for `letter`, most often itself; None where the value had ended before it, as numbers do.

        Raises `NotJsonError`.
        """
        return self._take(letter)

    # Outside of texts. Each of these takes one letter and says what may come next.

    def _value(self, letter: str) -> str:
        if letter in BLANKS:
            return letter
        if letter in "{[":
            return self._open(letter)
        self._begin_scalar(letter)
        return letter

    def _begin_scalar(self, letter: str) -> None:
        self._word = letter
        if letter == '"':
            self._take, self._after_text = self._text, self._behind_value
        elif letter == "-" or letter in "0123456789":
            self._take = self._number
        elif letter in "tfn":
            self._take = self._literal
        else:
            raise NotJsonError(letter)

    def _open(self, letter: str) -> str:
        if len(self._closers) == MAX_DEPTH:
            raise NotJsonError(letter)
        self._closers.append("}" if letter == "{" else "]")
        self._take = self._first_key if letter == "{" else self._first_item
        return letter

    def _first_key(self, letter: str) -> str:
        return self._close(letter) if letter == "}" else self._key(letter)

    def _first_item(self, letter: str) -> str:
        return self._close(letter) if letter == "]" else self._value(letter)

    def _key(self, letter: str) -> str:
        if letter == '"':
            self._take, self._after_text = self._text, self._colon
        elif letter not in BLANKS:
            raise NotJsonError(letter)
        return letter

    def _colon(self, letter: str) -> str:
        if letter == ":":
            self._take = self._value
        elif letter not in BLANKS:
            raise NotJsonError(letter)
        return letter

    def _behind_value(self, letter: str) -> str:
        if letter == ",":
            self._take = self._key if self._closers[-1] == "}" else self._value
        elif letter == self._closers[-1]:
            return self._close(letter)
        elif letter not in BLANKS:
            raise NotJsonError(letter)
        return letter

    def _close(self, letter: str) -> str:
        self._closers.pop()
        self._end_value()
        return letter

    def _end_value(self) -> None:
        self._take = self._behind_value
        self.is_complete = not self._closers

    # Scalars.

    def _number(self, letter: str) -> str | None:
        if len(self._word) < MAX_DIGITS and _NUMBER_SO_FAR.fullmatch(self._word + letter):
            self._word += letter
            return letter
        if not _NUMBER.fullmatch(self._word):
            raise NotJsonError(letter)
        self._end_value()
        return None if self.is_complete else self._behind_value(letter)

    def _literal(self, letter: str) -> str:
        self._word += letter
        if self._word in _WORDS:
            self._end_value()
        elif not any(word.startswith(self._word) for word in _WORDS):
            raise NotJsonError(letter)
        return letter

    def _text(self, letter: str) -> str:
        if letter == "\\":
            self._take = self._escape
            return ""
        lonely = self._lonely()
        if letter == '"':
            self._take = self._after_text
            if self._after_text == self._behind_value:
                self._end_value()
            return lonely + letter
        return lonely + (letter if letter >= " " else json.dumps(letter)[1:-1])

    def _escape(self, letter: str) -> str:
        if letter == "u":
            self._take, self._digits = self._hexadecimal, ""
            return ""
        if letter not in '"\\/bfnrt':
            raise NotJsonError(letter)
        self._take = self._text
        return f"{self._lonely()}\\{letter}"

    def _hexadecimal(self, letter: str) -> str:
        if letter not in _HEX:
            raise NotJsonError(letter)
        self._digits += letter
        if len(self._digits) < 4:
            return ""
        self._take = self._text
        return self._escaped(int(self._digits, 16))

    def _escaped(self, code: int) -> str:
        """A character by its number. Half a character (a surrogate without its other half) is none: nobody could read it."""
        if 0xD800 <= code < 0xDC00:
            lonely, self._high = self._lonely(), self._digits
            return lonely
        if 0xDC00 <= code < 0xE000:
            high, self._high = self._high, ""
            return f"\\u{high}\\u{self._digits}" if high else _NO_CHARACTER
        return f"{self._lonely()}\\u{self._digits}"

    def _lonely(self) -> str:
        """What stands for a first half that no second one follows."""
        high, self._high = self._high, ""
        return _NO_CHARACTER if high else ""


def is_json(text: str) -> bool:
    """Whether `text` is one JSON value."""
    return checked_json(text) is not None


def checked_json(text: str) -> str | None:
    """The one JSON value that `text` is, as it is passed on; None where it is none."""
    value = JsonPrefix()
    rest = text.strip(BLANKS)
    written = ""
    for place, letter in enumerate(rest):
        try:
            taken = value.take(letter)
        except NotJsonError:
            return None
        if taken is None:
            return None
        written += taken
        if value.is_complete:
            return written if place == len(rest) - 1 else None
    return written if _NUMBER.fullmatch(rest) else None


def json_text(text: str) -> str:
    """A JSON text. Half a character, which a JSON escape may have brought, is none."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return json.dumps(whole, ensure_ascii=False)
