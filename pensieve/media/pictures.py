"""Decodes a picture to the pixels that a vision model sees. Runs in the decoding process alone.

Of Pillow's formats it knows four, by their first bytes and not by what the client calls them:
clients mislabel. The first frame alone is decoded, turned as its EXIF data says, laid over white
where it is transparent; colour profiles are ignored, as by the models' own preprocessing.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from io import BytesIO

from PIL import Image, ImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pensieve.media.outcome import Picture, Refusal, RefusedError
from pensieve.media.picture_header import PictureKind, header_of
from pensieve.media.picture_size import PictureBounds, fitted_size

# Pillow imports these at first use, when the process opens no files any more; the last for EXIF.
for _name in ("ImageColor", "ImagePalette", "TiffImagePlugin"):
    import_module(f"PIL.{_name}")

_WHITE = (255, 255, 255)
_OPENERS: Mapping[PictureKind, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "png": PngImageFile,
    "jpeg": JpegImageFile,
    "gif": GifImageFile,
    "webp": WebPImageFile,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def picture_of(content: bytes, bounds: PictureBounds) -> Picture:
    """Raises `RefusedError`, and MemoryError."""
    header = header_of(content)
    try:
        image = _OPENERS[header.kind](BytesIO(content))
        is_as_promised = image.size == (header.stored_width, header.stored_height)
        rgb = _upright(_rgb(image), header.orientation) if is_as_promised else None
    except MemoryError:
        raise
    # Pillow raises errors of many kinds for damaged files.
    except Exception as error:
        raise RefusedError(Refusal.INVALID) from error
    if rgb is None:
        raise RefusedError(Refusal.INVALID)
    width, height = fitted_size(*rgb.size, bounds)
    resized = rgb.resize((width, height), Image.Resampling.BICUBIC)
    return Picture(width, height, resized.tobytes())


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


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
