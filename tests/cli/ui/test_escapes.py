"""No terminal control in a model's text reaches the terminal, however the text is split."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.cli.ui.escapes import EscapeStripper

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
pieces = st.lists(
    st.sampled_from(
        [
            "\x1b",
            "[",
            "]",
            "0;",
            "31m",
            "\x07",
            "\\",
            "P",
            "\n",
            "\x9b",
            "\x9c",
            "é",
            "x",
            "\u202e",
            "\u2066",
        ]
    )
    | st.text(max_size=3),
    max_size=30,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcödé, 🙂\n\ttabs", "plain, ünïcödé, 🙂\n\ttabs"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[Hcleared", "cleared"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP+q544e\x1b\\dcs", "dcs"),
        ("\x9b31mc1", "c1"),
        ("\x9d0;title\x9cc1 osc", "c1 osc"),
        ("\x1b(Bcharset", "charset"),
        ("\x1bcreset", "reset"),
        ("over\rwritten\b\b\x00", "overwritten"),
        ("\x1b]0;never ended\nnext line", "\nnext line"),
        ("\x1b[31\nnext line", "\nnext line"),
        ("\x1b]0;cut \x1b[31mshort", "short"),
        ("\u202egnp.exe \u2066isolated\u2069", "gnp.exe isolated"),
        (r"\033[31m as source", r"\033[31m as source"),
    ],
)
def test_control_sequences_are_removed_and_text_stays(text: str, shown: str) -> None:
    assert EscapeStripper().feed(text) == shown


@given(pieces)
def test_no_terminal_control_remains(parts: list[str]) -> None:
    assert not CONTROL.search(EscapeStripper().feed("".join(parts)))


@given(pieces)
def test_result_does_not_depend_on_chunk_boundaries(parts: list[str]) -> None:
    stripper = EscapeStripper()
    assert "".join(map(stripper.feed, parts)) == EscapeStripper().feed("".join(parts))


@given(
    st.text(
        st.characters(
            exclude_categories=("Cc", "Cs"),
            exclude_characters="\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
        )
    )
)
def test_text_without_control_is_unchanged(text: str) -> None:
    assert EscapeStripper().feed(text) == text
