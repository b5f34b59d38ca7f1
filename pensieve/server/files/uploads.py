"""Reads a multipart upload of one text file, PDF or picture: its bytes, a safe file name, its media
type.

The type comes from the client or from the file name, that of a picture from its first bytes; the
bytes must be UTF-8 text, or a PDF's or a picture's, which are read when a message refers to them.
The files endpoint calls it.
"""

import re
from dataclasses import dataclass
from functools import partial
from mimetypes import MimeTypes

import anyio.to_thread
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from pensieve.api.files import UploadFields, upload_fields
from pensieve.errors import InvalidRequestError, NotFoundError, RequestTooLargeError
from pensieve.media.picture_header import kind_of
from pensieve.server.http.request_body import body_chunks
from pensieve.untrusted_text import UNSAFE

MAX_FIELDS = 16
MAX_FIELD_BYTES = 4096
# Without the file: its part's head, the other fields, the boundaries.
MAX_OVERHEAD_BYTES = 128 * 1024
MAX_NAME_CHARS = 255

# Text types outside text/*.
TEXT_TYPES = frozenset(
    f"application/{name}"
    for name in [
        "json",
        "jsonl",
        "ndjson",
        "x-ndjson",
        "json5",
        "xml",
        "yaml",
        "x-yaml",
        "toml",
        "javascript",
        "ecmascript",
        "typescript",
        "x-sh",
        "x-python",
        "sql",
        "graphql",
        "csv",
        "x-tex",
        "x-httpd-php",
    ]
)
PDF_TYPE = "application/pdf"
_PDF_HEAD = b"%PDF-"
_PDF_HEAD_WITHIN = 1024  # bytes of a PDF, before which some programs write others
_UNSPECIFIED = {"", "application/octet-stream", "binary/octet-stream"}
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*", re.ASCII)
_PLAIN = "text/plain"


def _types() -> MimeTypes:
    """Return Python's own table plus what 3.11 lacks; not the machine's, so that types never
    differ.
    """
    types = MimeTypes()
    for extension, name in {
        ".md": "text/markdown",
        ".yaml": "application/yaml",
        ".yml": "application/yaml",
        ".toml": "application/toml",
        ".jsonl": "application/jsonl",
    }.items():
        types.add_type(name, extension)
    return types


_TYPES = _types()


@dataclass(frozen=True, slots=True)
class Upload:
    content: bytes
    filename: str
    mime_type: str
    fields: UploadFields


async def read_upload(request: Request, *, max_bytes: int) -> Upload:
    """Return the file in the form field `file`.

    Raises `InvalidRequestError` and `RequestTooLargeError`, and `NotFoundError` for an upload to
    OpenAI's API, which has the same path and other files.
    """
    form = await _read_form(request)
    try:
        if "purpose" in form and "anthropic-version" not in request.headers:
            raise NotFoundError("OpenAI's files are not here: send their text in the messages.")
        return await _upload(form, max_bytes)
    finally:
        await form.close()


async def _read_form(request: Request) -> FormData:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        raise InvalidRequestError("content-type: Input should be 'multipart/form-data'")
    chunks = body_chunks(request)
    parser = MultiPartParser(
        request.headers,
        chunks,
        max_files=1,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise InvalidRequestError(
            f"The request body is not a valid form: {error.message}"
        ) from None


async def _upload(form: FormData, max_bytes: int) -> Upload:
    file = form.get("file")
    if file is None:
        raise InvalidRequestError("file: Field required")
    if not isinstance(file, UploadFile):
        raise InvalidRequestError("file: Input should be a file, with a filename")
    fields = upload_fields({name: text for name, text in form.items() if isinstance(text, str)})
    content = await file.read()
    if len(content) > max_bytes:
        raise RequestTooLargeError(
            f"file: larger than the {max_bytes} bytes that this server stores"
        )
    find_type = partial(media_type_of, file.content_type or "", file.filename or "", content)
    mime_type = await anyio.to_thread.run_sync(find_type)
    return Upload(content, safe_name(file.filename or "", mime_type), mime_type, fields)


def media_type_of(declared_type: str, filename: str, content: bytes) -> str:
    """Return the media type of a text file, a PDF or a picture. Raises `InvalidRequestError` for
    others.
    """
    media_type = declared_type.partition(";")[0].strip().lower()
    kind = kind_of(content)
    if kind and (media_type in _UNSPECIFIED or media_type.startswith("image/")):
        return f"image/{kind}"
    is_text = _is_text(content)
    if media_type in _UNSPECIFIED:
        guessed = _TYPES.guess_type(filename, strict=False)[0] or _PLAIN
        # A name may mislead: `.ts` is guessed as video, but may be TypeScript.
        media_type = guessed if _is_text_type(guessed) or not is_text else _PLAIN
    if media_type == PDF_TYPE:
        if _PDF_HEAD not in content[:_PDF_HEAD_WITHIN]:
            raise InvalidRequestError("file: the content is not a PDF")
        return PDF_TYPE
    if not _is_text_type(media_type):
        raise InvalidRequestError(
            f"file: files of type '{media_type[:100]}' are not supported; this server stores PDFs,"
            " JPEG, PNG, GIF and WebP pictures, and text documents (text/*, application/json and"
            " the like)"
        )
    if not is_text:
        raise InvalidRequestError("file: the content is not text in UTF-8")
    return media_type


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _is_text_type(media_type: str) -> bool:
    return bool(_MEDIA_TYPE.fullmatch(media_type)) and (
        media_type.startswith("text/")
        or media_type in TEXT_TYPES
        or re.fullmatch(r"application/.*\+(json|xml|yaml)", media_type) is not None
    )


def safe_name(filename: str, mime_type: str) -> str:
    """Return the last component of `filename`, without characters unsafe for a terminal.

    Falls back to a generated name if nothing remains.
    """
    last = re.split(r"[/\\]", filename)[-1]
    name = UNSAFE.sub("", last).strip()[:MAX_NAME_CHARS]
    if name.strip(". "):
        return name
    return f"unnamed{_TYPES.guess_extension(mime_type) or ''}"
