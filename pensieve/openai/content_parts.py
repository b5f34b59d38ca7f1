"""Parts of the content of messages and results, of both APIs, to content blocks.

PDFs become documents, pictures images, if the model sees. No model reads other files and audio.
"""

import re
from typing import Annotated, cast

from pydantic import BeforeValidator, JsonValue

from pensieve.api.base import RequestModel
from pensieve.api.messages.content_blocks import (
    Base64Image,
    DocumentBlock,
    FileSource,
    TextBlock,
    TranslatedImage,
    TranslatedPdf,
)
from pensieve.errors import InvalidRequestError

# What only other models read, by kind of part.
_UNREADABLE = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
}
# Where the fields of a picture are.
_PICTURES = {"image_url": "image_url.url", "input_image": "image_url"}
# Where the fields of a file are.
_FILES = {"file": "file.file_data", "input_file": "file_data"}
_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^;,]*)*;base64,", re.IGNORECASE)
_PDF_TYPES = {"application/pdf", "application/x-pdf", "application/octet-stream", ""}


class FileFields(RequestModel):
    """A file; only a PDF is read."""

    file_data: str = ""  # base64, also as a data URL
    filename: str = ""


class ImageUrl(RequestModel):
    """A picture as a data URL; other URLs are not fetched."""

    url: str = ""
    detail: JsonValue = None  # `low` asks for a coarse view


def _url_object(value: object) -> object:
    """Return the URL in an object, as chat completions have it."""
    if isinstance(value, str):
        return {"url": value}
    return cast("object", value) if isinstance(value, dict) else {}


class ContentPart(FileFields):
    """A part of a message's content."""

    type: str = "text"
    text: str = ""
    refusal: str = ""
    file: FileFields = FileFields()  # of a part of the type `file`
    image_url: Annotated[
        ImageUrl, BeforeValidator(_url_object, json_schema_input_type=str | ImageUrl)
    ] = ImageUrl()
    detail: JsonValue = None
    file_id: str = ""  # of an uploaded picture


PartBlock = TextBlock | DocumentBlock | TranslatedImage


def block_of(
    part: ContentPart, path: str, model: str, *, in_result: bool, sees: bool = False
) -> PartBlock | None:
    """Return None for an empty part. in_result: a note takes the place of what cannot be read.

    Refusing it there would fail every later request of the session. sees: whether the model does.
    Raises `InvalidRequestError`.
    """
    if sees and part.type in _PICTURES:
        return _image(part, path, in_result=in_result)
    if part.type in _FILES:
        return _document(part, f"{path}.{_FILES[part.type]}", in_result=in_result)
    if kind := _UNREADABLE.get(part.type):
        reason = f"model '{model}' does not support {kind} input"
        return _unread(kind, f"{path}.type", reason, in_result=in_result)
    text = part.text or part.refusal
    return TextBlock(type="text", text=text) if text else None


def _image(part: ContentPart, path: str, *, in_result: bool) -> TranslatedImage | TextBlock:
    url, field = part.image_url.url, f"{path}.{_PICTURES[part.type]}"
    if part.file_id and not url:
        field = f"{path}.file_id"
        source: FileSource | Base64Image = FileSource(type="file", file_id=part.file_id)
    elif (head := _DATA_URL.match(url)) is not None:
        # The kind is told by the first bytes: clients mislabel.
        source = Base64Image(type="base64", media_type="image/png", data=url[head.end() :])
    else:
        reason = "pictures by URL are not fetched; send a data URL with base64"
        return _unread("image", field, reason, in_result=in_result)
    return TranslatedImage(
        type="image",
        source=source,
        path=field,
        is_optional=in_result,
        is_small="low" in (part.image_url.detail, part.detail),
    )


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
