"""Pictures become the pixels that a vision model sees; hostile ones are refused.

`PENSIEVE_FILES=200 pytest tests/media/test_pictures.py` decodes more damaged ones.
"""

import os
import random
import struct
import zlib
from collections.abc import Mapping
from io import BytesIO

import pytest
from PIL import Image

from pensieve.media.decoder import Decoder
from pensieve.media.outcome import Picture, Refusal, RefusedError
from pensieve.media.picture_size import PictureBounds
from pensieve.media.pictures import picture_of

FILES = int(os.environ.get("PENSIEVE_FILES", "24"))
# As large as the pictures here, so that their pixels stay as they are.
SAME = PictureBounds(unit=1, min_pixels=1, max_pixels=10_000)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
ALLOWED = ("PNG", "JPEG", "GIF", "WEBP")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """Return a picture that is 20 wide and 10 high."""
    image = Image.new(mode, (20, 10), left)
    image.paste(right, (10, 0, 20, 10))
    return image


def corners(picture: Picture) -> list[tuple[int, ...]]:
    """Return the colours of the first pixel and the last one."""
    return [tuple(picture.pixels[:3]), tuple(picture.pixels[-3:])]


def near(picture: Picture, *colours: tuple[int, ...]) -> bool:
    pairs = zip(corners(picture), colours, strict=True)
    return all(
        abs(a - b) <= 4 for found, wanted in pairs for a, b in zip(found, wanted, strict=True)
    )


def refusal_of(content: bytes) -> Refusal:
    with pytest.raises(RefusedError) as caught:
        picture_of(content, SAME)
    return caught.value.refusal


@pytest.mark.parametrize("kind", ALLOWED)
def test_each_format_has_its_pixels(kind: str) -> None:
    picture = picture_of(encoded(halves(RED, BLUE), kind), SAME)
    assert (picture.width, picture.height, len(picture.pixels)) == (20, 10, 600)
    assert near(picture, RED, BLUE)


def test_a_picture_is_scaled_to_the_bounds() -> None:
    picture = picture_of(encoded(Image.new("RGB", (400, 100), GREEN), "PNG"), PictureBounds())
    assert (picture.width, picture.height, len(picture.pixels)) == (512, 128, 512 * 128 * 3)
    assert corners(picture) == [GREEN, GREEN]


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "ICO", "PDF", "TGA"])
def test_other_formats_are_refused(kind: str) -> None:
    assert refusal_of(encoded(halves(RED, BLUE), kind)) is Refusal.INVALID


@pytest.mark.parametrize(
    "content", [b"", b"text", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_is_invalid(content: bytes) -> None:
    assert refusal_of(content) is Refusal.INVALID


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_truncated_picture_is_invalid(kind: str) -> None:
    noise = Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3))
    content = encoded(noise, kind)
    assert refusal_of(content[: len(content) // 2]) is Refusal.INVALID


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "size", [(60_000, 60_000), (8001, 1), (8000, 4001), (2**31 - 1, 2**31 - 1)]
)
def test_a_size_over_the_limit_is_refused_by_the_header(size: tuple[int, int]) -> None:
    assert refusal_of(png_header(*size)) is Refusal.TOO_LARGE


def test_a_stripe_is_refused() -> None:
    assert refusal_of(encoded(Image.new("RGB", (402, 2)), "PNG")) is Refusal.INVALID
    assert picture_of(encoded(Image.new("RGB", (400, 2)), "PNG"), SAME).width == 400


@pytest.mark.parametrize(
    ("orientation", "size", "colours"),
    [(1, (20, 10), (RED, BLUE)), (3, (20, 10), (BLUE, RED)), (6, (10, 20), (RED, BLUE))],
)
def test_a_photograph_is_turned_upright(
    orientation: int, size: tuple[int, int], colours: tuple[tuple[int, ...], ...]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "WEBP"):
        picture = picture_of(encoded(halves(RED, BLUE), kind, exif=exif), SAME)
        assert (picture.width, picture.height) == size
        assert near(picture, *colours)


@pytest.mark.parametrize(
    ("image", "kind", "options"),
    [
        (halves((255, 0, 0, 255), (9, 9, 9, 0), "RGBA"), "PNG", {}),
        (halves((255, 0, 0, 255), (9, 9, 9, 0), "RGBA"), "WEBP", {"lossless": True}),
        (halves(RED, (9, 9, 9)), "PNG", {"transparency": (9, 9, 9)}),
        (halves(RED, (9, 9, 9)).quantize(4), "PNG", {"transparency": None}),
        (halves(RED, (9, 9, 9)).quantize(4), "GIF", {"transparency": None}),
    ],
    ids=["RGBA", "WebP", "tRNS", "palette", "GIF"],
)
def test_transparent_pixels_are_white(
    image: Image.Image, kind: str, options: Mapping[str, object]
) -> None:
    if options.get("transparency", RED) is None:
        options = {"transparency": image.getpixel((19, 9))}
    assert corners(picture_of(encoded(image, kind, **options), SAME)) == [RED, WHITE]


def test_grey_of_16_bits_keeps_its_shades() -> None:
    row = struct.pack("<H", 0x4000) * 10 + struct.pack("<H", 0xC0FF) * 10
    image = Image.frombytes("I;16", (20, 10), row * 10)
    assert corners(picture_of(encoded(image, "PNG"), SAME)) == [(64,) * 3, (192,) * 3]


def test_grey_bilevel_and_cmyk_pictures_are_in_colour() -> None:
    half = halves(WHITE, (0, 0, 0))
    for image in (half.convert("L"), half.convert("1"), half.convert("LA")):
        assert corners(picture_of(encoded(image, "PNG"), SAME)) == [WHITE, (0, 0, 0)]
    cmyk = picture_of(encoded(half.convert("CMYK"), "JPEG"), SAME)
    assert near(cmyk, WHITE, (0, 0, 0))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_seen(kind: str) -> None:
    frames = [halves(BLUE, GREEN), halves(GREEN, GREEN)]
    content = encoded(halves(RED, BLUE), kind, save_all=True, append_images=frames)
    assert near(picture_of(content, SAME), RED, BLUE)


async def test_a_picture_is_decoded_by_another_process_and_once() -> None:
    decoder = Decoder()
    for kind in ALLOWED:
        exif = Image.Exif()
        exif[0x0112] = 3
        content = encoded(halves(BLUE, RED).quantize(4).convert("RGB"), kind, exif=exif)
        picture = await decoder.picture(content, SAME)
        assert isinstance(picture, Picture)
        assert picture == picture_of(content, SAME)
        assert await decoder.picture(content, SAME) is picture
        larger = await decoder.picture(content, PictureBounds())
        assert isinstance(larger, Picture)
        assert (larger.width, larger.height) == (384, 192)
    assert await decoder.picture(b"no picture", SAME) is Refusal.INVALID
    assert await decoder.picture(png_header(60_000, 60_000), SAME) is Refusal.TOO_LARGE


@pytest.mark.parametrize(
    "code",
    [
        """print('{"width": 1, "height": 1}')""",
        """print('{"width": -1, "height": -1}\\nabc', end="")""",
        """print('{"width": "1", "height": 1}\\nabc', end="")""",
        "print('{}')",
        "raise SystemExit(1)",
    ],
)
async def test_a_process_that_answers_nonsense_refuses_its_picture(code: str) -> None:
    assert await Decoder(("-c", code)).picture(b"", SAME) is Refusal.TOO_COSTLY


def damaged(number: int) -> bytes:
    chance = random.Random(number)
    image = Image.frombytes("RGB", (40, 30), chance.randbytes(3600))
    content = bytearray(encoded(image, ALLOWED[number % 4]))
    for _ in range(chance.randint(1, 20)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content[: chance.randint(len(content) // 2, len(content))])


async def test_damaged_pictures_are_decoded_or_refused() -> None:
    decoder = Decoder()
    for number in range(FILES):
        found = await decoder.picture(damaged(number), SAME)
        assert isinstance(found, Picture) or found in {Refusal.INVALID, Refusal.TOO_LARGE}
