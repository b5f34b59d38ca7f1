"""Reads the text of a PDF's pages, by pdfium. Runs in the decoding process alone.

pdfium is built without JavaScript and XFA. Forms are not opened: what is typed into their fields is
no text of the page.
"""

import codecs
from typing import cast

from pypdfium2 import PdfDocument, PdfiumError
from pypdfium2.raw import FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY

from pensieve.media.outcome import MAX_CHARS, MAX_PAGES, PdfPages, Refusal, RefusedError

# Python reads it from a file at first use, when the process opens none any more.
codecs.lookup("utf-16-le")

# What pdfium writes for a hyphen at the end of a line, the ends of lines, and the rest of the
# characters that are no text.
_HYPHENS = dict.fromkeys(map(ord, "\x02\xad\ufffe"), "-")
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160), 0xFEFF, 0xFFFF])
_READABLE = {**_CONTROLS, **_HYPHENS, ord("\n"): "\n", ord("\t"): "\t"}


def page_texts(content: bytes, max_chars: int = MAX_CHARS) -> PdfPages:
    """Raises `RefusedError`."""
    try:
        document = PdfDocument(content)
    except PdfiumError as error:
        code = cast("int | None", error.err_code)  # pyright: ignore[reportUnknownMemberType]
        is_locked = code in {FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY}
        raise RefusedError(Refusal.ENCRYPTED if is_locked else Refusal.INVALID) from None
    if len(document) > MAX_PAGES:
        raise RefusedError(Refusal.TOO_MANY_PAGES)
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
