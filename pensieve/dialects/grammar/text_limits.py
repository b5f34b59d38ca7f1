"""Write the length and the pattern of unquoted texts as regular expressions of a grammar.

Only cheap limits are enforced: a bound of a long text counts every character of it.
"""

import re
from collections.abc import Iterator

from pensieve.dialects.dialect import Schema

LIMITS = ("pattern", "minLength", "maxLength")
# 40 texts of 128 characters, each optional, spend llguidance's fuel (2026-11-30); a few short ones
# do not.
MAX_LENGTH = 64
MAX_PATTERN_CHARS = 128
MAX_REPEAT = 64

_JSON_CHAR = r"(?:[^\"\\\x00-\x1f]|\\(?:[\"\\\/bfnrt]|u[0-9a-fA-F]{4}))"
_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")
# An escape, a class, or a single character.
_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


def length_limit(schema: Schema, char: str = "(?s:.)") -> str | None:
    """Return the expression for texts of the schema's length; None if it is not enforced."""
    minimum, maximum = (_count(schema, key) for key in ("minLength", "maxLength"))
    if minimum is None and maximum is None:
        return None
    return f"{char}{{{minimum or 0},{'' if maximum is None else maximum}}}"


def json_length_limit(schema: Schema) -> str:
    """Return the same for the text in JSON."""
    return f'\\"{length_limit(schema, _JSON_CHAR) or f"{_JSON_CHAR}*"}\\"'


def pattern_limit(schema: Schema, mark: str) -> str | None:
    """Return the expression for texts that the pattern of `schema` matches.

    None if it is not enforced: it is too complex, or may match texts that contain `mark`.
    """
    pattern = schema.get("pattern")
    if not isinstance(pattern, str) or not _is_small(pattern):
        return None
    parts = _PART.findall(pattern)
    start, end = parts[:1] == ["^"], parts[-1:] == ["$"]
    inner = parts[start : len(parts) - end]
    if "^" in inner or "$" in inner or ((start or end) and "|" in _outside_groups(inner)):
        return None
    is_closed = start and end and not any(_matches(part, mark[:1]) for part in inner)
    if mark and not is_closed:
        return None
    body = "".join(r"\/" if part == "/" else part.replace("\n", r"\n") for part in inner)
    before, after = "" if start else "(?s:.*)", "" if end else "(?s:.*)"
    return f"{before}(?:{body}){after}"


def _matches(part: str, char: str) -> bool:
    """Return whether a part of a pattern is one character that may be `char`."""
    if len(part) == 1 and part in "()*+?{}":
        return False
    return re.fullmatch(part, char) is not None


def _count(schema: Schema, key: str) -> int | None:
    value = schema.get(key)
    return value if isinstance(value, int) and value <= MAX_LENGTH else None


def _is_small(pattern: str) -> bool:
    if len(pattern) > MAX_PATTERN_CHARS:
        return False
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    counts = (int(minimum[:6]) for pair in _REPEAT.findall(pattern) for minimum in pair if minimum)
    return max(counts, default=0) <= MAX_REPEAT


def _outside_groups(parts: list[str]) -> Iterator[str]:
    depth = 0
    for part in parts:
        depth += (part == "(") - (part == ")")
        if not depth:
            yield part
