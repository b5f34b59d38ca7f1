"""Building blocks of parsers, fed one character at a time."""

import re
from typing import TypeVar

import pytest

from pensieve.reply.char_parser import (
    CharParser,
    UnexpectedError,
    blank_tolerant,
    json_value,
    next_non_blank,
    one_of,
    text_until,
    up_to,
)

T = TypeVar("T")


def parse(parser: CharParser[T], text: str) -> tuple[T, str]:
    """Return the parser's result, and the rest of `text` that it did not read."""
    try:
        next(parser)
        for index, char in enumerate(text):
            rest = text[index + 1 :]
            parser.send(char)
    except StopIteration as end:
        return end.value, rest
    raise AssertionError("the parser wants more")


@pytest.mark.parametrize(
    ("text", "result"),
    [("a b", ("a", " b")), (" \t\r\nx", ("x", "")), ("\u00a0x", ("\u00a0", "x"))],
)
def test_the_next_character_that_is_not_blank_is_returned(
    text: str, result: tuple[str, str]
) -> None:
    assert parse(next_non_blank(), text) == result


def test_a_literal_after_blanks_is_returned() -> None:
    assert parse(one_of(["</a>", "<b>"]), "\n </a>x") == ("</a>", "x")
    assert parse(one_of(["</a>", "<b>"], " "), "<b>x") == ("<b>", "x")


@pytest.mark.parametrize("text", ["x", "</b", "< /a>"])
def test_what_begins_no_literal_is_refused(text: str) -> None:
    with pytest.raises(UnexpectedError):
        parse(one_of(["</a>", "<b>"]), text)


def test_a_pattern_is_matched_up_to_the_maximum_length() -> None:
    match, rest = parse(up_to(re.compile("[a-z]+;"), max_chars=3), "abc;x")
    assert (match[0], rest) == ("abc;", "x")
    with pytest.raises(UnexpectedError):
        parse(up_to(re.compile("[a-z]+;"), max_chars=2), "abc;")
    with pytest.raises(UnexpectedError):
        parse(up_to(re.compile("[a-z]+;"), max_chars=3, read="a"), "bcd;")


@pytest.mark.parametrize(
    ("end", "written", "text"),
    [
        ("</p>", "a\n</p>x", "a\n"),
        ("\n</p>", "a\n\n</p>x", "a\n"),
        ("\n</p>", "a</p>x", "a"),
        ("\n</p>", "a\nb</p></p>x", "a\nb"),
        ("</p>", "</</p </p>x", "</</p "),
    ],
)
def test_text_ends_at_its_mark(end: str, written: str, text: str) -> None:
    emitted: list[str] = []
    assert parse(text_until(end, emitted.append), written)[1] == written.split("</p>", 1)[1]
    assert "".join(emitted) == text
    assert all(len(one) == 1 for one in emitted)


@pytest.mark.parametrize("written", ['{"a": [1]}', '"x"', "true"])
def test_a_json_value_with_an_end_of_its_own_leaves_what_follows(written: str) -> None:
    emitted: list[str] = []
    assert parse(json_value(emitted.append, written[0]), f"{written[1:]}, x") == (None, ", x")
    assert "".join(emitted) == written


def test_the_character_that_ends_a_number_is_returned() -> None:
    emitted: list[str] = []
    assert parse(json_value(emitted.append, "1"), "2, x") == (",", " x")
    assert emitted == ["1", "2"]


@pytest.mark.parametrize(
    ("literal", "texts"),
    [
        ("<a\nb>", ["<a\nb>", "<ab>", "<a \t\nb>"]),
        ("a.b", ["a.b"]),
        ("", [""]),
    ],
)
def test_blanks_of_a_literal_are_optional_and_other_characters_are_not(
    literal: str, texts: list[str]
) -> None:
    pattern = re.compile(blank_tolerant(literal))
    assert all(pattern.fullmatch(text) for text in texts)
    assert not any(pattern.fullmatch(text) for text in ("<a?b>", "axb", "x"))
