"""Reads the text of a PDF's pages and draws them, by pdfium. Runs in the decoding process alone.

pdfium is built without JavaScript and XFA. Forms are not opened: what is typed into their fields is
no text of the page.
"""

import codecs
from typing import Any, cast

from pypdfium2 import PdfBitmap, PdfDocument, PdfiumError
from pypdfium2.raw import (
    FPDF_ANNOT,
    FPDF_ERR_PASSWORD,
    FPDF_ERR_SECURITY,
    FPDF_REVERSE_BYTE_ORDER,
    FPDF_RenderPageBitmap,  # pyright: ignore[reportUnknownVariableType]
    FPDFBitmap_BGR,
)

from pensieve.media.outcome import (
    MAX_CHARS,
    MAX_PAGES,
    PageSizes,
    PdfPages,
    Picture,
    Refusal,
    RefusedError,
)

# Python reads it from a file at first use, when the process opens none any more.
codecs.lookup("utf-16-le")

# Legible, and no more tokens than a screenshot.
PIXELS_PER_POINT = 100 / 72

# What pdfium writes for a hyphen at the end of a line, the ends of lines, and the rest of the
# characters that are no text.
_HYPHENS = dict.fromkeys(map(ord, "\x02\xad\ufffe"), "-")
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160), 0xFEFF, 0xFFFF])
_READABLE = {**_CONTROLS, **_HYPHENS, ord("\n"): "\n", ord("\t"): "\t"}


def page_texts(content: bytes, max_chars: int = MAX_CHARS) -> PdfPages:
    """Raises `RefusedError`."""
    document = _opened(content)
    texts: list[str | None] = []
    chars = 0
    for index in range(len(document)):
        text = _page_text(document, index)
        chars += len(text or "")
        if chars > max_chars:
            raise RefusedError(Refusal.TOO_LONG)
        texts.append(text)
    if all(text is None for text in texts):
        raise RefusedError(Refusal.INVALID)
    return tuple(texts)


def page_sizes(content: bytes) -> PageSizes:
    """Return each page's size at 100 dots per inch; None for a damaged one.

    Raises `RefusedError`.
    """
    document = _opened(content)
    return tuple(_page_size(document, index) for index in range(len(document)))


def page_picture(content: bytes, index: int, width: int, height: int) -> Picture:
    """Draw a page in this size; white if it cannot be drawn. Raises `RefusedError`."""
    document = _opened(content)
    library: Any = PdfBitmap  # it has no types
    bitmap = library.new_native(width, height, FPDFBitmap_BGR, rev_byteorder=True)
    bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
    try:
        page = document[index]
        flags = FPDF_ANNOT | FPDF_REVERSE_BYTE_ORDER
        FPDF_RenderPageBitmap(bitmap, page, 0, 0, width, height, 0, flags)
    except (PdfiumError, IndexError):
        pass
    rows, stride = memoryview(bitmap.buffer).cast("B"), int(bitmap.stride)
    starts = range(0, height * stride, stride)
    return Picture(width, height, b"".join(rows[at : at + 3 * width] for at in starts))


def _opened(content: bytes) -> PdfDocument:
    try:
        document = PdfDocument(content)
    except PdfiumError as error:
        code = cast("int | None", error.err_code)  # pyright: ignore[reportUnknownMemberType]
        is_locked = code in {FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY}
        raise RefusedError(Refusal.ENCRYPTED if is_locked else Refusal.INVALID) from None
    if len(document) > MAX_PAGES:
        raise RefusedError(Refusal.TOO_MANY_PAGES)
    return document


def _page_size(document: PdfDocument, index: int) -> tuple[int, int] | None:
    try:
        sides = document[index].get_size()  # pyright: ignore[reportUnknownMemberType]
    except PdfiumError:
        return None
    width, height = (max(1, round(min(side, 1e6) * PIXELS_PER_POINT)) for side in sides)
    return width, height


def _page_text(document: PdfDocument, index: int) -> str | None:
    """Return None for a damaged page."""
    try:
        page = document[index]
        # Unlike `get_text_range` it has all of Unicode, and nothing outside the page.
        text = page.get_textpage().get_text_bounded()  # pyright: ignore[reportUnknownMemberType]
    except PdfiumError:
        return None
    page.close()
    return _readable(text)


def _readable(text: str) -> str:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").translate(_READABLE).split("\n")
    return "\n".join(line.rstrip() for line in lines).strip("\n")
