"""Reads a picture's kind and size from its header, without decoding it.

The prompt needs no more than that: a picture's tokens follow from its size. Pure and bounded, since
the file may be hostile; the decoding process reads the same header, and refuses a picture in which
its library finds another size.
"""

import re
import struct
from dataclasses import dataclass
from typing import Literal

from pensieve.media.outcome import Refusal, RefusedError
from pensieve.media.picture_size import MAX_PIXELS, MAX_RATIO, MAX_SIDE

PictureKind = Literal["png", "jpeg", "gif", "webp"]
PNG = b"\x89PNG\r\n\x1a\n"

# Parts of a file that are looked at: far more than before the pixels of any real one.
_MAX_PARTS = 100_000
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_SIZE_MARKERS = {*range(0xC0, 0xD0), 0xDE} - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = {0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}
_PIXELS_BEGIN, _APP1 = 0xDA, 0xE1
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
# How the values of a tag are stored: one byte, two, four.
_FORMATS = {1: "B", 3: "H", 4: "I"}


@dataclass(frozen=True, slots=True)
class PictureHeader:
    kind: PictureKind
    # Of the pixels as they are stored.
    stored_width: int
    stored_height: int
    orientation: int = 1  # by EXIF, 1 to 8

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture."""
        if self.orientation < 5:
            return self.stored_width, self.stored_height
        return self.stored_height, self.stored_width


def kind_of(content: bytes) -> PictureKind | None:
    """Return the kind by the first bytes; None for anything else."""
    match content[:12]:
        case head if head.startswith(PNG):
            return "png"
        case head if head.startswith(b"\xff\xd8\xff"):
            return "jpeg"
        case head if head.startswith((b"GIF87a", b"GIF89a")):
            return "gif"
        case head if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
            return "webp"
        case _:
            return None


def header_of(content: bytes) -> PictureHeader:
    """Raises `RefusedError`, also for a size that is never decoded."""
    kind = kind_of(content)
    if kind is None:
        raise RefusedError(Refusal.INVALID)
    read = {"png": _png, "jpeg": _jpeg, "gif": _gif, "webp": _webp}[kind]
    try:
        header = read(content)
    except (struct.error, IndexError):  # the file ends here
        raise RefusedError(Refusal.INVALID) from None
    _check_size(*header.size)
    return header


def _check_size(width: int, height: int) -> None:
    if min(width, height) < 1:
        raise RefusedError(Refusal.INVALID)
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise RefusedError(Refusal.TOO_LARGE)
    if max(width, height) > MAX_RATIO * min(width, height):
        raise RefusedError(Refusal.INVALID)


def _png(content: bytes) -> PictureHeader:
    length, name, width, height = struct.unpack_from(">I4sII", content, 8)
    if (length, name) != (13, b"IHDR"):
        raise RefusedError(Refusal.INVALID)
    at, exif = 8, b""
    for _ in range(_MAX_PARTS):
        if at + 8 > len(content):
            break
        length, name = struct.unpack_from(">I4s", content, at)
        if name == b"eXIf":
            exif = content[at + 8 : at + 8 + length]
            break
        at += 12 + length
    return PictureHeader("png", width, height, _orientation(exif))


def _jpeg(content: bytes) -> PictureHeader:
    size: tuple[int, int] | None = None
    exif, at = b"", 2
    for _ in range(_MAX_PARTS):
        found = _MARKER.search(content, at)
        if found is None or (marker := found[0][1]) == _PIXELS_BEGIN:
            break
        at = found.end()
        if marker in _BARE_MARKERS or marker < 0xC0:
            continue
        (length,) = struct.unpack_from(">H", content, at)
        if marker in _SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", content, at + 3)
            size = width, height
        elif marker == _APP1 and not exif and content.startswith(_EXIF, at + 2):
            exif = content[at + 2 : at + length]
        at += max(length, 2)
    if size is None:
        raise RefusedError(Refusal.INVALID)
    return PictureHeader("jpeg", *size, _orientation(exif))


def _gif(content: bytes) -> PictureHeader:
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    for _ in range(_MAX_PARTS):
        match content[at]:
            case 0x2C:  # the first frame, which may be larger
                left, top, across, down = struct.unpack_from("<HHHH", content, at + 1)
                return PictureHeader("gif", max(width, left + across), max(height, top + down))
            case 0x21:
                at = _after_blocks(content, at + 2)
            case 0x3B:
                break
            case _:
                at += 1
    raise RefusedError(Refusal.INVALID)


def _after_blocks(content: bytes, at: int) -> int:
    for _ in range(_MAX_PARTS):
        length = content[at]
        at += 1 + length
        if not length:
            return at
    raise RefusedError(Refusal.INVALID)


def _webp(content: bytes) -> PictureHeader:
    match content[12:16]:
        case b"VP8X":
            width = 1 + int.from_bytes(content[24:27], "little")
            height = 1 + int.from_bytes(content[27:30], "little")
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", content, 21)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
        case _:
            raise RefusedError(Refusal.INVALID)
    if len(content) < 30:
        raise RefusedError(Refusal.INVALID)
    return PictureHeader("webp", width, height, _orientation(_webp_exif(content)))


def _webp_exif(content: bytes) -> bytes:
    at = 12
    for _ in range(_MAX_PARTS):
        if at + 8 > len(content):
            break
        name, length = struct.unpack_from("<4sI", content, at)
        if name == b"EXIF":
            return content[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return b""


def _orientation(exif: bytes) -> int:
    """Return the orientation of the first directory; 1 without one that is valid."""
    exif = exif.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, form, values = struct.unpack_from(f"{order}HHI", exif, at)
            if tag == _ORIENTATION and values == 1 and form in _FORMATS:
                (value,) = struct.unpack_from(order + _FORMATS[form], exif, at + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:  # the data ends here
        pass
    return 1
