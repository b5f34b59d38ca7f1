"""Pictures of a question: files that are named by an option, or dragged into the line."""

import re
from base64 import b64encode
from pathlib import Path
from typing import Literal

from pensieve.api.messages.content_blocks import Base64Image, ImageBlock
from pensieve.errors import UsageError

# The server's limit, before base64.
MAX_BYTES = 10 * 1024**2 * 3 // 4
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp"})
_PNG, _JPEG, _WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"WEBP"
# A path as terminals insert it: with quotes, or with backslashes before blanks.
_WORD = re.compile(r"""'[^']*'|"[^"]*"|(?:\\.|[^\s'"\\])+""")

MediaType = Literal["image/jpeg", "image/png", "image/gif", "image/webp"]


def read_image(path: Path) -> ImageBlock:
    """Raises `UsageError` for a file that is no picture, or too large."""
    try:
        with path.expanduser().open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    media_type = _media_type(content)
    if media_type is None:
        raise UsageError(f"{path} is no PNG, JPEG, GIF or WebP picture.")
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES // 1024**2} MB, the limit.")
    data = b64encode(content).decode()
    source = Base64Image(type="base64", media_type=media_type, data=data)
    return ImageBlock(type="image", source=source)


def dragged(line: str) -> tuple[str, tuple[Path, ...]]:
    """Return the line without the paths of pictures in it, and those paths.

    Only absolute paths of files that exist count, as terminals insert them.
    """
    found: list[Path] = []

    def collect(word: re.Match[str]) -> str:
        path = _picture_path(word[0])
        if path is None:
            return word[0]
        found.append(path)
        return ""

    text = _WORD.sub(collect, line)
    return (text.strip(), tuple(found)) if found else (line, ())


def _picture_path(word: str) -> Path | None:
    is_quoted = word[0] in "'\""
    text = word[1:-1] if is_quoted else re.sub(r"\\(.)", r"\1", word)
    path = Path(text).expanduser() if text.startswith(("/", "~/")) else None
    if path is None or path.suffix.lower() not in SUFFIXES:
        return None
    try:
        return path if path.is_file() else None
    except (OSError, ValueError):
        return None


def _media_type(content: bytes) -> MediaType | None:
    match content[:12]:
        case head if head.startswith(_PNG):
            return "image/png"
        case head if head.startswith(_JPEG):
            return "image/jpeg"
        case head if head.startswith((b"GIF87a", b"GIF89a")):
            return "image/gif"
        case head if head.startswith(b"RIFF") and head.endswith(_WEBP):
            return "image/webp"
        case _:
            return None
