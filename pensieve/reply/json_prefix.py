"""Check JSON one character at a time: the output so far is always the beginning of a JSON value.

Control characters inside strings, such as raw line breaks and tabs, are replaced by their escapes,
lone surrogates by U+FFFD. Values that a client could not send back are rejected: too deep ones and
too large numbers.
"""

import json
import math
import re

BLANKS = " \t\r\n"
# A request may have 64 levels (api/json_body.py); messages and their blocks take five of them, a
# batch three more.
MAX_DEPTH = 56
# Of a number, all its characters. Python converts no integer with more digits.
MAX_DIGITS = 4300

_NUMBER_SO_FAR = re.compile(
    r"-?(?:0|[1-9][0-9]*)?(?:(?<=[0-9])\.[0-9]*)?(?:(?<=[0-9])[eE][+-]?[0-9]*)?"
)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LITERALS = ("true", "false", "null")
_REPLACEMENT = r"\ufffd"
_HEX = "0123456789abcdefABCDEF"


class NotJsonError(ValueError):
    """No JSON value continues with this character."""


class JsonPrefix:
    """Owns the state of one value. Feed it characters until `is_complete`."""

    def __init__(self) -> None:
        self.is_complete = False
        self._closers: list[str] = []
        self._high = ""
        self._next = self._value

    def feed(self, char: str) -> str | None:
        """Return the output for `char`, or None if the value ended before it, as numbers do.

        Raises `NotJsonError`.
        """
        return self._next(char)

    # Outside of strings. Each of these handles one character and sets the handler of the next.

    def _value(self, char: str) -> str:
        if char in BLANKS:
            return char
        if char in "{[":
            return self._open(char)
        self._begin_scalar(char)
        return char

    def _begin_scalar(self, char: str) -> None:
        self._token = char
        if char == '"':
            self._next, self._after_string = self._string, self._after_value
        elif char == "-" or char in "0123456789":
            self._next = self._number
        elif char in "tfn":
            self._next = self._literal
        else:
            raise NotJsonError(char)

    def _open(self, char: str) -> str:
        if len(self._closers) == MAX_DEPTH:
            raise NotJsonError(char)
        self._closers.append("}" if char == "{" else "]")
        self._next = self._first_key if char == "{" else self._first_item
        return char

    def _first_key(self, char: str) -> str:
        return self._close(char) if char == "}" else self._key(char)

    def _first_item(self, char: str) -> str:
        return self._close(char) if char == "]" else self._value(char)

    def _key(self, char: str) -> str:
        if char == '"':
            self._next, self._after_string = self._string, self._colon
        elif char not in BLANKS:
            raise NotJsonError(char)
        return char

    def _colon(self, char: str) -> str:
        if char == ":":
            self._next = self._value
        elif char not in BLANKS:
            raise NotJsonError(char)
        return char

    def _after_value(self, char: str) -> str:
        if char == ",":
            self._next = self._key if self._closers[-1] == "}" else self._value
        elif char == self._closers[-1]:
            return self._close(char)
        elif char not in BLANKS:
            raise NotJsonError(char)
        return char

    def _close(self, char: str) -> str:
        self._closers.pop()
        self._end_value()
        return char

    def _end_value(self) -> None:
        self._next = self._after_value
        self.is_complete = not self._closers

    # Scalars.

    def _number(self, char: str) -> str | None:
        if len(self._token) < MAX_DIGITS and _NUMBER_SO_FAR.fullmatch(self._token + char):
            self._token += char
            return char
        if not _is_number(self._token):
            raise NotJsonError(char)
        self._end_value()
        return None if self.is_complete else self._after_value(char)

    def _literal(self, char: str) -> str:
        self._token += char
        if self._token in _LITERALS:
            self._end_value()
        elif not any(literal.startswith(self._token) for literal in _LITERALS):
            raise NotJsonError(char)
        return char

    def _string(self, char: str) -> str:
        if char == "\\":
            self._next = self._escape
            return ""
        replacement = self._flush_surrogate()
        if char == '"':
            self._next = self._after_string
            if self._after_string == self._after_value:
                self._end_value()
            return replacement + char
        return replacement + (char if char >= " " else json.dumps(char)[1:-1])

    def _escape(self, char: str) -> str:
        if char == "u":
            self._next, self._digits = self._hexadecimal, ""
            return ""
        if char not in '"\\/bfnrt':
            raise NotJsonError(char)
        self._next = self._string
        return f"{self._flush_surrogate()}\\{char}"

    def _hexadecimal(self, char: str) -> str:
        if char not in _HEX:
            raise NotJsonError(char)
        self._digits += char
        if len(self._digits) < 4:
            return ""
        self._next = self._string
        return self._escaped(int(self._digits, 16))

    def _escaped(self, code: int) -> str:
        """Return the escape of a UTF-16 code unit; a high surrogate waits for the low one."""
        if 0xD800 <= code < 0xDC00:
            replacement, self._high = self._flush_surrogate(), self._digits
            return replacement
        if 0xDC00 <= code < 0xE000:
            high, self._high = self._high, ""
            return f"\\u{high}\\u{self._digits}" if high else _REPLACEMENT
        return f"{self._flush_surrogate()}\\u{self._digits}"

    def _flush_surrogate(self) -> str:
        """Return U+FFFD if a high surrogate was not followed by a low one."""
        high, self._high = self._high, ""
        return _REPLACEMENT if high else ""


def normalize_json(text: str) -> str | None:
    """Return `text` as `JsonPrefix` writes it, or None if it is not exactly one JSON value."""
    value = JsonPrefix()
    rest = text.strip(BLANKS)
    written = ""
    for index, char in enumerate(rest):
        try:
            chunk = value.feed(char)
        except NotJsonError:
            return None
        if chunk is None:
            return None
        written += chunk
        if value.is_complete:
            return written if index == len(rest) - 1 else None
    return written if _is_number(rest) else None


def _is_number(text: str) -> bool:
    """Whether a client can send the number back: an infinite one is refused (api/json_body.py)."""
    return bool(_INTEGER.fullmatch(text)) or (
        bool(_NUMBER.fullmatch(text)) and not math.isinf(float(text))
    )


def json_string(text: str) -> str:
    """Return the JSON string for `text`, with U+FFFD for lone surrogates."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return json.dumps(whole, ensure_ascii=False)
