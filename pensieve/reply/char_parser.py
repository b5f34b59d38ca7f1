"""Building blocks of parsers that read one character at a time.

A `CharParser` is a generator that is sent one character at a time, so how the text is split into
pieces cannot matter. It returns when it has read its part, and raises `UnexpectedError` at the
first character that does not fit.
"""

import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from pensieve.reply.json_prefix import BLANKS, JsonPrefix, NotJsonError

T = TypeVar("T")
CharParser = Generator[None, str, T]

_SPACE = re.compile(r"\s+")


class UnexpectedError(Exception):
    """The next character does not fit what is being parsed."""


def next_non_blank(first: str | None = None) -> CharParser[str]:
    """Return the first character that is not blank: `first`, if given, or a later one."""
    char = (yield) if first is None else first
    while char in BLANKS:
        char = yield
    return char


def one_of(literals: Sequence[str], first: str | None = None) -> CharParser[str]:
    """Skip blanks and return the literal that follows. No literal may be a prefix of another."""
    read = yield from next_non_blank(first)
    while read not in literals:
        if not any(literal.startswith(read) for literal in literals):
            raise UnexpectedError
        read += yield
    return read


def up_to(end: re.Pattern[str], *, max_chars: int, read: str = "") -> CharParser[re.Match[str]]:
    """Read until everything from `read` on matches `end`."""
    while not (match := end.fullmatch(read)):
        if len(read) > max_chars:
            raise UnexpectedError
        read += yield
    return match


def text_until(end: str, emit: Callable[[str], None], first: str = "") -> CharParser[None]:
    """Emit the text before `end` as it comes, beginning with `first`.

    If `end` begins with a line break, the break is optional.
    """
    ends = (end, end.lstrip("\n"))
    pending = first
    while pending not in ends:
        while pending and not any(one.startswith(pending) for one in ends):
            emit(pending[0])
            pending = pending[1:]
        pending += yield


def blank_tolerant(literal: str) -> str:
    """Return a pattern for `literal` that accepts any blanks, or none, where it has some."""
    return r"\s*".join(map(re.escape, _SPACE.split(literal)))


def json_value(emit: Callable[[str], None], first: str) -> CharParser[str | None]:
    """Emit a JSON value that begins with `first`.

    Returns the character after it if only that shows the end, as after a number; otherwise None.
    """
    value = JsonPrefix()
    following = first
    while True:
        try:
            written = value.feed(following)
        except NotJsonError:
            raise UnexpectedError from None
        if written is None:
            return following
        emit(written)
        if value.is_complete:
            return None
        following = yield
