"""Pictures for tests, and a model that sees them."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from pensieve.engine.generation import Generation
from pensieve.models.folder.sight import Sight
from tests.support.fakes import CONTROLS

START, PAD, END = 300, 301, 302
# A picture of the default size has 8 tokens.
SIGHT = Sight(START, PAD, END, unit=32, min_pixels=4096, max_pixels=1_310_720)


def picture(
    size: tuple[int, int] = (128, 64), colour: str = "red", kind: str = "PNG", orientation: int = 1
) -> bytes:
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    content = BytesIO()
    Image.new("RGB", size, colour).save(content, kind, **({"exif": exif} if len(exif) else {}))
    return content.getvalue()


def image_of(content: bytes, media_type: str = "image/png") -> dict[str, object]:
    """Return an image block."""
    data = b64encode(content).decode()
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": media_type, "data": data},
    }


def data_url(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"


def shown(generation: Generation) -> str:
    """Return the prompt, with each picture as its number in braces, from 0 on.

    Checks that the tokens of pictures are where `pictures` says, between their marks.
    """
    tokens: list[int] = list(generation.prompt_tokens)
    parts: list[str] = []
    after = 0
    for number, one in enumerate(generation.pictures):
        assert (tokens[one.start - 1], tokens[one.tokens.stop]) == (START, END)
        assert all(token < 0 for token in tokens[one.start : one.tokens.stop])
        parts.append(_text(tokens[after : one.start - 1]) + f"{{{number}}}")
        after = one.tokens.stop + 1
    return "".join([*parts, _text(tokens[after:])])


def _text(tokens: Sequence[int]) -> str:
    names = {token: name for name, token in CONTROLS.items()}
    assert all(0 <= token < START for token in tokens)
    pieces = (names[one].encode() if one in names else bytes([one]) for one in tokens)
    return b"".join(pieces).decode()
