"""Foreign text cannot control a terminal, break a line of the log or reorder a line."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.cli.ui import output
from pensieve.untrusted_text import UNSAFE, lines, one_line

BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
anything = st.text(st.characters(exclude_categories=[])) | st.text(
    "\x00\x07\x1b\x7f\x9b\x9c\r\u202a\u202e\u2066\u2069\u2028\ud800[]31mx"
)
HOSTILE = [
    "\x1b[2Jcleared",
    "\x1b]0;title\x07",
    "\x1b]52;c;aGk=\x07",
    "\x9b31mred",
    "over\rwritten",
    "\u202egnp.exe",
    "\u2066a\u2069",
    "\x08\x08\x7f",
    "half \ud800",
]


def is_unsafe(character: str) -> bool:
    is_control = unicodedata.category(character) in {"Cc", "Cs"}
    return is_control or unicodedata.bidirectional(character) in BIDI


@given(anything)
def test_one_line_escapes_all_controls(text: str) -> None:
    escaped = one_line(text)
    assert not any(map(is_unsafe, escaped))
    assert len(escaped.splitlines()) <= 1


@given(anything)
def test_lines_keeps_only_line_ends_and_tabs(text: str) -> None:
    escaped = lines(text)
    assert {character for character in escaped if is_unsafe(character)} <= {"\n", "\t"}
    assert escaped.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\0\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u2028", r"\u2028"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("größe 🙂 \u200d \u0645", "größe 🙂 \u200d \u0645"),
    ],
)
def test_unsafe_characters_are_escaped(text: str, escaped: str) -> None:
    assert one_line(text) == escaped


@pytest.mark.parametrize("text", HOSTILE)
def test_every_terminal_output_is_escaped(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.data(text)
    output.labelled(f"ok    {text}", 5, output.GREEN)
    output.note(text)
    output.hint(text)
    output.warning(text)
    output.failure(text, text)
    printed = capsys.readouterr()
    assert not any(
        is_unsafe(character) and character != "\n" for character in printed.out + printed.err
    )
    output.rewrite_line(text)
    drawn = capsys.readouterr().err.removeprefix("\r\x1b[2K")
    assert not any(map(is_unsafe, drawn))


@given(anything)
def test_escapes_equal_pythons(text: str) -> None:
    assert one_line(text) == UNSAFE.sub(
        lambda match: match[0].encode("unicode_escape").decode(), text
    )
