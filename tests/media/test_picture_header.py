"""A picture's size by its header is that of the decoded picture; damaged headers are refused."""

import random
import struct
from io import BytesIO

import pytest
from PIL import Image, ImageOps

from pensieve.media.outcome import Refusal, RefusedError
from pensieve.media.picture_header import header_of, kind_of
from pensieve.media.picture_size import PictureBounds, fitted_size
from pensieve.media.pictures import picture_of

KINDS = {"PNG": "png", "JPEG": "jpeg", "GIF": "gif", "WEBP": "webp"}


def encoded(kind: str, size: tuple[int, int], orientation: int = 1, **options: object) -> bytes:
    image = Image.effect_noise(size, 40).convert("RGB")
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (20, 10), (333, 17), (8000, 41)])
def test_the_size_is_that_of_the_picture(kind: str, size: tuple[int, int]) -> None:
    header = header_of(encoded(kind, size))
    assert (header.kind, header.size) == (KINDS[kind], size)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_size_and_pixels_as_pillow_does(kind: str, orientation: int) -> None:
    content = encoded(kind, (40, 20), orientation, quality=100)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(content)))
    header = header_of(content)
    assert header.size == upright.size
    picture = picture_of(content, PictureBounds(unit=1, min_pixels=1, max_pixels=10_000))
    assert (picture.width, picture.height) == upright.size
    assert picture.pixels == upright.convert("RGB").tobytes()


@pytest.mark.parametrize(
    "options",
    [{"progressive": True}, {"icc_profile": b"p" * 70_000}, {"comment": b"c" * 300}],
)
def test_parts_before_the_size_of_a_jpeg_are_skipped(options: dict[str, object]) -> None:
    assert header_of(encoded("JPEG", (33, 22), **options)).size == (33, 22)


@pytest.mark.parametrize("options", [{"lossless": True}, {"icc_profile": b"p" * 100}])
def test_each_form_of_webp_has_its_size(options: dict[str, object]) -> None:
    assert header_of(encoded("WEBP", (33, 22), **options)).size == (33, 22)


def test_a_picture_has_the_size_that_its_header_promises() -> None:
    bounds = PictureBounds(unit=4, min_pixels=400, max_pixels=4000)
    for kind in KINDS:
        for size in [(9, 5), (100, 3), (64, 64), (7, 130)]:
            content = encoded(kind, size)
            picture = picture_of(content, bounds)
            expected = fitted_size(*header_of(content).size, bounds)
            assert (picture.width, picture.height) == expected


@pytest.mark.parametrize(
    ("size", "refusal"),
    [
        ((8001, 1), Refusal.TOO_LARGE),
        ((6000, 6000), Refusal.TOO_LARGE),
        ((201, 1), Refusal.INVALID),
        ((0, 0), Refusal.INVALID),
    ],
)
def test_a_size_that_is_never_decoded_is_refused(size: tuple[int, int], refusal: Refusal) -> None:
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", *size) + bytes(9)
    with pytest.raises(RefusedError) as caught:
        header_of(content)
    assert caught.value.refusal is refusal


def test_other_content_has_no_kind() -> None:
    for content in (b"", b"%PDF-1.7", b"<svg", b"BM6", b"RIFF\0\0\0\0WAVE", b"II*\0"):
        assert kind_of(content) is None
        with pytest.raises(RefusedError):
            header_of(content)


def test_damaged_headers_are_read_or_refused() -> None:
    chance = random.Random(1)
    for kind in KINDS:
        whole = encoded(kind, (30, 20), 1 if kind == "GIF" else 6)
        for _ in range(500):
            content = bytearray(whole[: chance.randint(0, 400)])
            for _ in range(chance.randint(0, 6)):
                if content:
                    content[chance.randrange(len(content))] = chance.randrange(256)
            try:
                width, height = header_of(bytes(content)).size
            except RefusedError:
                continue
            assert 0 < width <= 8000
            assert 0 < height <= 8000
