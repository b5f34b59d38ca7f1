"""Decodes a picture to the pixels that a vision model sees. Runs in the decoding process alone.

Of Pillow's formats it knows four, by their first bytes and not by what the client calls them:
clients mislabel. The first frame alone is decoded, turned as its EXIF data says, laid over white
where it is transparent; colour profiles are ignored, as by the models' own preprocessing.
"""

from collections.abc import Callable
from importlib import import_module
from io import BytesIO

from PIL import Image, ImageFile, ImageOps
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pensieve.media.outcome import Picture, Refusal, RefusedError
from pensieve.media.picture_size import (
    MAX_PIXELS,
    MAX_RATIO,
    MAX_SIDE,
    PictureBounds,
    fitted_size,
)

# Pillow imports these at first use, when the process opens no files any more; the last for EXIF.
for _name in ("ImageColor", "ImagePalette", "TiffImagePlugin"):
    import_module(f"PIL.{_name}")

_WHITE = (255, 255, 255)


def picture_of(content: bytes, bounds: PictureBounds) -> Picture:
    """Raises `RefusedError`, and MemoryError."""
    try:
        image = _opened(content)
        _check_size(*image.size)
        rgb = _rgb(ImageOps.exif_transpose(image))
    except (RefusedError, MemoryError):
        raise
    # Pillow raises errors of many kinds for damaged files.
    except Exception as error:
        raise RefusedError(Refusal.INVALID) from error
    width, height = fitted_size(*rgb.size, bounds)
    resized = rgb.resize((width, height), Image.Resampling.BICUBIC)
    return Picture(width, height, resized.tobytes())


def _opened(content: bytes) -> ImageFile.ImageFile:
    """Read the header. Raises `RefusedError` for another format, and what Pillow raises."""
    kind: Callable[[BytesIO], ImageFile.ImageFile]
    match content[:12]:
        case head if head.startswith(b"\x89PNG\r\n\x1a\n"):
            kind = PngImageFile
        case head if head.startswith(b"\xff\xd8\xff"):
            kind = JpegImageFile
        case head if head.startswith((b"GIF87a", b"GIF89a")):
            kind = GifImageFile
        case head if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
            kind = WebPImageFile
        case _:
            raise RefusedError(Refusal.INVALID)
    return kind(BytesIO(content))


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise RefusedError(Refusal.TOO_LARGE)
    if max(width, height) > MAX_RATIO * min(width, height):
        raise RefusedError(Refusal.INVALID)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits of grey: `convert` would make all of it white.
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, _WHITE)
    white.paste(image, mask=image)
    return white
