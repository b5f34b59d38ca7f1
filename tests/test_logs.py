"""What is logged, and that nothing in a message can forge a line."""

import io
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The log, with logging put back as it was afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("pensieve").level)
    kept = io.StringIO()
    root.handlers[:] = []
    yield kept
    logging.captureWarnings(capture=False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    logging.getLogger("pensieve").setLevel(before[2])


def test_a_line_has_its_time_its_level_and_its_message(stream: io.StringIO) -> None:
    logs.set_up(is_debug=False, stream=stream)
    logging.getLogger("pensieve.server").info("the model is loaded (%s s)", 3)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO the model is loaded \(3 s\)\n", stream.getvalue()
    )


def test_libraries_are_heard_from_warning_on(stream: io.StringIO) -> None:
    logs.set_up(is_debug=True, stream=stream)
    logging.getLogger("httpcore").info("chatter")
    logging.getLogger("httpcore").warning("trouble")
    logging.getLogger("pensieve").debug("detail")
    assert [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()] == [
        "WARNING trouble",
        "DEBUG detail",
    ]


def test_setting_up_again_writes_no_line_twice(stream: io.StringIO) -> None:
    logs.set_up(is_debug=True, stream=stream)
    logs.set_up(is_debug=False, stream=stream)
    logging.getLogger("pensieve").debug("detail")
    logging.getLogger("pensieve").info("once")
    assert stream.getvalue().count("\n") == 1


def test_an_error_and_its_traceback_are_one_line(stream: io.StringIO) -> None:
    logs.set_up(is_debug=False, stream=stream)
    try:
        int("bad\nvalue")
    except ValueError:
        logging.getLogger("pensieve").exception("it broke")
    assert stream.getvalue().count("\n") == 1
    assert r"\nValueError: invalid literal" in stream.getvalue()


@given(st.text())
def test_whatever_is_logged_stays_on_its_line(text: str) -> None:
    escaped = logs.escape(text)
    assert len(escaped.splitlines()) <= 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in escaped)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\0\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u2028", r"\u2028"),
        ("größe 🙂", "größe 🙂"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, escaped: str) -> None:
    assert logs.escape(text) == escaped
