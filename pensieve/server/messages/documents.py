"""Reads the documents of a request: uploaded files and PDFs become text, before all other steps.

For a model that sees, pages of PDFs become pictures as well.
"""

import logging
from base64 import b64decode
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio

from pensieve.api.messages.content_blocks import (
    ContentSource,
    FileSource,
    PdfSource,
    TextBlock,
)
from pensieve.api.messages.request import MAX_BODY_BYTES, Conversation
from pensieve.errors import EngineBusyError, InvalidRequestError, RequestTooLargeError
from pensieve.media.outcome import MAX_PAGES, PdfPages, Refusal
from pensieve.prompt.conversation.documents import (
    UnreadDocument,
    pages_text,
    unread_documents,
    with_texts,
)
from pensieve.server.files.store import FileContent
from pensieve.server.files.uploads import PDF_TYPE
from pensieve.server.messages.pdf_pages import PageReader
from pensieve.worker_threads import run_in_thread

_log = logging.getLogger("pensieve.server")

MAX_PDFS = 100  # Anthropic's, of images and documents
# For all documents of a request. What was read by then is read from memory the next time.
TIMEOUT_S = 120.0

# Clients know the first three.
_REASONS = {
    Refusal.INVALID: "The PDF specified was not valid.",
    Refusal.ENCRYPTED: "The PDF specified is password protected.",
    Refusal.TOO_MANY_PAGES: f"A maximum of {MAX_PAGES} PDF pages may be provided.",
    Refusal.TOO_COSTLY: "Could not process PDF: reading it takes too much time or memory.",
    Refusal.NO_LIBRARY: "Could not process PDF: this server's library for PDFs does not load.",
}

ConversationT = TypeVar("ConversationT", bound=Conversation)


# Of a file's id and the name of the key that owns it. Raises `NotFoundError`.
OwnedFile = Callable[[str, str], FileContent]
PdfPagesOf = Callable[[bytes], Awaitable[PdfPages | Refusal]]


class DocumentReader:
    def __init__(
        self, owned_file: OwnedFile, pdf_pages: PdfPagesOf, pages: PageReader | None = None
    ) -> None:
        """pages: None for a model that reads text alone."""
        self._owned_file = owned_file
        self._pdf_pages = pdf_pages
        self._pages = pages

    async def read(self, call: ConversationT, key_name: str) -> ConversationT:
        """Return `call` with the texts of its documents; the key owns the files among them.

        Raises `InvalidRequestError`, `RequestTooLargeError`, `NotFoundError` for a file, and
        `EngineBusyError` if reading takes too long.
        """
        documents = await run_in_thread(partial(unread_documents, call))
        pdfs = sum(isinstance(document.source, PdfSource) for document in documents)
        if pdfs > MAX_PDFS:
            raise InvalidRequestError(f"too many images and documents: 0 + {pdfs} > {MAX_PDFS}")
        texts: dict[str, str | ContentSource] = {}
        chars = 0
        try:
            with anyio.fail_after(TIMEOUT_S):
                for document in documents:
                    text = await self._text(document, call.model, key_name)
                    chars += _chars_of(text)
                    # A few bytes could refer to a large file many times.
                    if chars > MAX_BODY_BYTES:
                        raise RequestTooLargeError("Request exceeds the maximum size")
                    texts[document.path] = text
        except TimeoutError:
            raise EngineBusyError("The documents of the request take too long to read.") from None
        return await run_in_thread(partial(with_texts, call, texts))

    async def _text(
        self, document: UnreadDocument, model: str, key_name: str
    ) -> str | ContentSource:
        try:
            content = await run_in_thread(partial(self._content, document, key_name))
            if isinstance(content, str):
                return content
            pages = await self._pdf_pages(content)
            if self._pages is not None and not isinstance(pages, Refusal):
                return await self._pages.read(content, pages)
            return _pdf_text(pages, document, model)
        except InvalidRequestError as error:
            if not document.is_optional:
                raise
            # Without the path: later requests may have another, and would differ from here on.
            reason = error.message.removeprefix(f"{document.content_path}: ")
            return f"[file that cannot be read: {reason}]"

    def _content(self, document: UnreadDocument, key_name: str) -> str | bytes:
        """Return the text of a file, or the bytes of a PDF."""
        match document.source:
            case FileSource(file_id=file_id):
                file = self._owned_file(file_id, key_name)
                if file.media_type.startswith("image/"):
                    raise _refused(document, "the file is a picture, and no document.")
                is_pdf = file.media_type == PDF_TYPE
                return file.content if is_pdf else file.content.decode("utf-8-sig")
            case PdfSource(data=data):
                try:
                    return b64decode(data, validate=True)
                except ValueError:
                    raise _refused(document, _REASONS[Refusal.INVALID]) from None


def _chars_of(text: str | ContentSource) -> int:
    if isinstance(text, str):
        return len(text)
    return sum(len(part.text) for part in text.content if isinstance(part, TextBlock))


def _pdf_text(result: PdfPages | Refusal, document: UnreadDocument, model: str) -> str:
    """Raises `InvalidRequestError` for a PDF without any text, and `RequestTooLargeError`."""
    match result:
        case Refusal.TOO_LONG:
            raise RequestTooLargeError("Request exceeds the maximum size")
        case Refusal():
            if result is Refusal.NO_LIBRARY:
                _log.error("PDFs are refused: the package pypdfium2 does not load")
            raise _refused(document, _REASONS.get(result, _REASONS[Refusal.TOO_COSTLY]))
        case pages if any(pages):
            return pages_text(pages)
        case pages:
            raise _refused(
                document,
                # Claude Code would take "does not support PDF input" for every PDF.
                f"Could not process PDF: none of its {len(pages)} pages has text. Model '{model}'"
                " reads text alone; a scan needs a model with vision.",
            )


def _refused(document: UnreadDocument, reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"{document.content_path}: {reason}")
