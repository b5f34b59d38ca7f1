"""Parts of the content of messages and results, of both APIs, to content blocks.

PDFs become documents, of which models read the text. No model reads other files, images and audio.
"""

import re

from pensieve.api.base import RequestModel
from pensieve.api.messages.content_blocks import DocumentBlock, TextBlock, TranslatedPdf
from pensieve.errors import InvalidRequestError

# What only other models read, by kind of part.
_UNREADABLE = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
}
# Where the fields of a file are.
_FILES = {"file": "file.file_data", "input_file": "file_data"}
_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^;,]*)*;base64,", re.IGNORECASE)
_PDF_TYPES = {"application/pdf", "application/x-pdf", "application/octet-stream", ""}


class FileFields(RequestModel):
    """A file; only a PDF is read."""

    file_data: str = ""  # base64, also as a data URL
    filename: str = ""


class ContentPart(FileFields):
    """A part of a message's content."""

    type: str = "text"
    text: str = ""
    refusal: str = ""
    file: FileFields = FileFields()  # of a part of the type `file`


def block_of(
    part: ContentPart, path: str, model: str, *, in_result: bool
) -> TextBlock | DocumentBlock | None:
    """Return None for an empty part. in_result: a note takes the place of what cannot be read.

    Refusing it there would fail every later request of the session. Raises `InvalidRequestError`.
    """
    if part.type in _FILES:
        return _document(part, f"{path}.{_FILES[part.type]}", in_result=in_result)
    if kind := _UNREADABLE.get(part.type):
        reason = f"model '{model}' does not support {kind} input"
        return _unread(kind, f"{path}.type", reason, in_result=in_result)
    text = part.text or part.refusal
    return TextBlock(type="text", text=text) if text else None


def _document(part: ContentPart, path: str, *, in_result: bool) -> DocumentBlock | TextBlock:
    file = part.file if part.type == "file" else part
    if not file.file_data:
        reason = "only a PDF's content as base64 is read, no URL and no stored file"
        return _unread("file", path, reason, in_result=in_result)
    url = _DATA_URL.match(file.file_data)
    if url is not None and url[1].lower() not in _PDF_TYPES:
        reason = f"only PDFs are read, not '{url[1][:100]}'"
        return _unread("file", path, reason, in_result=in_result)
    pdf = TranslatedPdf(
        type="base64",
        media_type="application/pdf",
        data=file.file_data if url is None else file.file_data[url.end() :],
        path=path,
        is_optional=in_result,
    )
    return DocumentBlock(type="document", source=pdf, title=file.filename or None)


def _unread(kind: str, path: str, reason: str, *, in_result: bool) -> TextBlock:
    if not in_result:
        raise InvalidRequestError(f"{path}: Could not process {kind}: {reason}")
    return TextBlock(type="text", text=f"[{kind} that this model cannot read]")
