"""Which size a picture gets before a vision model sees it. Pure: both processes use it."""

import math
from dataclasses import dataclass

MAX_SIDE = 8000  # Anthropic's
# Half of what the sides allow: decoding 64 million takes a gigabyte.
MAX_PIXELS = 32_000_000
MAX_RATIO = 200  # of the sides, as Qwen's models were trained


@dataclass(frozen=True, slots=True)
class PictureBounds:
    """The sizes that a model takes. By default Qwen3.5's, and 1280 tokens."""

    unit: int = 32  # each side is a multiple of it
    min_pixels: int = 65_536
    max_pixels: int = 1_310_720


def fitted_size(width: int, height: int, bounds: PictureBounds) -> tuple[int, int]:
    """Return the width and height that are nearest to the picture's within the bounds.

    As transformers' `smart_resize`, so that a model sees what it was trained with.
    """
    unit = bounds.unit
    fitted = (round(width / unit) * unit, round(height / unit) * unit)
    pixels = fitted[0] * fitted[1]
    if pixels > bounds.max_pixels:
        scale = math.sqrt(width * height / bounds.max_pixels)
        return (
            max(unit, math.floor(width / scale / unit) * unit),
            max(unit, math.floor(height / scale / unit) * unit),
        )
    if pixels < bounds.min_pixels:
        scale = math.sqrt(bounds.min_pixels / (width * height))
        return (
            math.ceil(width * scale / unit) * unit,
            math.ceil(height * scale / unit) * unit,
        )
    return fitted
