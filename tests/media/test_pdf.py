"""The text of PDFs, as pdfium reads it."""

import pytest

from pensieve.media.outcome import MAX_CHARS, Refusal, RefusedError
from pensieve.media.pdf import page_picture, page_sizes, page_texts
from tests.support.pdfs import locked_pdf, pdf_of


@pytest.mark.parametrize("is_compressed", [False, True])
def test_each_page_is_its_text_in_lines(is_compressed: bool) -> None:
    pages = ("Größe (in €)\nsecond line", "", "three")
    assert page_texts(pdf_of(*pages, is_compressed=is_compressed)) == pages


def test_characters_that_are_no_text_are_left_out() -> None:
    assert page_texts(pdf_of("a\x07b\x1bc")) == ("abc",)


def test_a_hundred_pages_are_read_and_one_more_refused() -> None:
    assert page_texts(pdf_of(*["p"] * 100)) == ("p",) * 100
    assert refusal_of(pdf_of(*["p"] * 101)) is Refusal.TOO_MANY_PAGES


def test_a_locked_pdf_is_refused_as_such() -> None:
    assert refusal_of(locked_pdf()) is Refusal.ENCRYPTED


@pytest.mark.parametrize(
    "content", [b"", b"text", b"%PDF-1.4\n", pdf_of(), pdf_of("cut off")[:200], b"\x89PNG\r\n"]
)
def test_what_is_no_pdf_is_invalid(content: bytes) -> None:
    assert refusal_of(content) is Refusal.INVALID


def test_a_damaged_page_is_none_between_others() -> None:
    content = pdf_of("one", "two", "three").replace(b"[4 0 R 6 0 R 8 0 R]", b"[4 0 R 1 0 R 8 0 R]")
    assert page_texts(content) == ("one", None, "three")


def test_more_text_than_is_allowed_is_refused() -> None:
    content = pdf_of("four", "five!")
    assert page_texts(content, max_chars=9) == ("four", "five!")
    assert refusal_of(content, max_chars=8) is Refusal.TOO_LONG


def test_pages_have_their_sizes_at_a_hundred_dots_per_inch() -> None:
    content = pdf_of("one", "two").replace(b"[4 0 R 6 0 R]", b"[4 0 R 1 0 R]")
    assert page_sizes(content) == ((850, 1100), None)


def test_a_page_is_drawn_in_its_size() -> None:
    content = pdf_of("#" * 40, "")
    drawn, empty = (page_picture(content, index, 96, 128) for index in (0, 1))
    assert (drawn.width, drawn.height, len(drawn.pixels)) == (96, 128, 96 * 128 * 3)
    assert min(drawn.pixels) < 250
    assert set(empty.pixels) == {255}


def test_a_page_that_cannot_be_drawn_is_white() -> None:
    assert set(page_picture(pdf_of("one"), 5, 32, 64).pixels) == {255}


def refusal_of(content: bytes, max_chars: int = MAX_CHARS) -> Refusal:
    with pytest.raises(RefusedError) as caught:
        page_texts(content, max_chars)
    return caught.value.refusal
