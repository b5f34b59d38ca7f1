"""Reading letter by letter: how the pieces are cut that a text arrives in can then make no difference.

A reader is a generator that is sent one letter at a time. It returns when it has read what it is for, and raises
`UnexpectedError` at the first letter that cannot be.
"""

import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from pensieve.reply.json_prefix import BLANKS, JsonPrefix, NotJsonError

T = TypeVar("T")
CharParser = Generator[None, str, T]

_SPACE = re.compile(r"\s+")


class UnexpectedError(Exception):
    """What is written is not what was to be read."""


def next_non_blank(first: str | None = None) -> CharParser[str]:
    """The first letter that is not blank, `first` or a later one."""
    found = (yield) if first is None else first
    while found in BLANKS:
        found = yield
    return found


def one_of(literals: Sequence[str], first: str | None = None) -> CharParser[str]:
    """Whichever of `literals`, none of which begins another, comes after blanks."""
    read = yield from next_non_blank(first)
    while read not in literals:
        if not any(literal.startswith(read) for literal in literals):
            raise UnexpectedError
        read += yield
    return read


def up_to(end: re.Pattern[str], *, most: int, read: str = "") -> CharParser[re.Match[str]]:
    """Letters up to where all of them together match `end`."""
    while not (found := end.fullmatch(read)):
        if len(read) > most:
            raise UnexpectedError
        read += yield
    return found


def text_until(end: str, say: Callable[[str], None], first: str = "") -> CharParser[None]:
    """Says the text before `end`, from `first` on, as it comes. A line break just before an end that begins with one is its."""
    ends = (end, end.lstrip("\n"))
    held = first
    while held not in ends:
        while held and not any(one.startswith(held) for one in ends):
            say(held[0])
            held = held[1:]
        held += yield


def loosened(literal: str) -> str:
    """A pattern for `literal` that takes any blanks where it has some."""
    return r"\s*".join(map(re.escape, _SPACE.split(literal)))


def json_value(say: Callable[[str], None], first: str) -> CharParser[str | None]:
    """A JSON value from its first letter on. Gives back the letter behind it, where the end shows only there."""
    value = JsonPrefix()
    following = first
    while True:
        try:
            taken = value.take(following)
        except NotJsonError:
            raise UnexpectedError from None
        if taken is None:
            return following
        say(taken)
        if value.is_complete:
            return None
        following = yield


def certain(text: str, marks: Sequence[str]) -> int:
    """How many letters can be no beginning of a mark that is not whole yet."""
    longest = max(map(len, marks), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return len(text) - length
    return len(text)


def first_of(marks: Sequence[str], text: str) -> tuple[int, str]:
    """Where the first of `marks` stands in `text`, and which it is, the longest of those in one place; none: (-1, "")."""
    found = [(place, -len(mark), mark) for mark in marks if (place := text.find(mark)) >= 0]
    place, _, mark = min(found, default=(-1, 0, ""))
    return place, mark
