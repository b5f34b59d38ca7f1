"""Whether a folder's model sees pictures, in which sizes, and by which tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pensieve.engine.planning.tower_files import sees, tower_shape_of
from pensieve.models.folder.model_files import read_file
from pensieve.untrusted_json import read_object

START, PAD, END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
# Qwen's, of a picture's area in pixels.
_MIN_PIXELS, _MAX_PIXELS = 65_536, 16_777_216
# The names of both areas: newer and older ones.
_NAMES = (("shortest_edge", "min_pixels"), ("longest_edge", "max_pixels"))
_UNREADABLE = (OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Sight:
    """How a model sees a picture: as tokens of `unit` by `unit` pixels, between two marks."""

    start_token: int
    pad_token: int  # the template has one for each picture
    end_token: int
    unit: int = 32
    min_pixels: int = _MIN_PIXELS
    max_pixels: int = _MAX_PIXELS

    def limited(self, max_tokens: int) -> "Sight":
        """Return the sight of pictures of at most so many tokens."""
        most = max(self.unit**2, min(self.max_pixels, max_tokens * self.unit**2))
        return replace(self, min_pixels=min(self.min_pixels, most), max_pixels=most)


def sight_of(folder: Path, config: Mapping[str, Any], controls: Mapping[str, int]) -> Sight | None:
    """Return how the model in `folder` sees; None if it does not.

    controls: the tokenizer's control tokens.
    """
    tower = tower_shape_of(config)
    if tower is None or not {START, PAD, END} <= controls.keys() or not sees(folder):
        return None
    sizes = _sizes_of(folder)
    least, most = (
        _area(sizes, names, default)
        for names, default in zip(_NAMES, (_MIN_PIXELS, _MAX_PIXELS), strict=True)
    )
    most = max(most, tower.unit**2)
    return Sight(controls[START], controls[PAD], controls[END], tower.unit, min(least, most), most)


def _sizes_of(folder: Path) -> Mapping[str, object]:
    """Return the fields with a picture's areas; empty if there are none."""
    fields = _read(folder / "preprocessor_config.json")
    if not fields:
        fields = _fields(_read(folder / "processor_config.json").get("image_processor"))
    return {**fields, **_fields(fields.get("size"))}


def _read(file: Path) -> Mapping[str, object]:
    try:
        return read_object(read_file(file))
    except _UNREADABLE:
        return {}


def _area(sizes: Mapping[str, object], names: tuple[str, ...], default: int) -> int:
    areas = (_number(sizes.get(name), 0) for name in names)
    return next(filter(None, areas), default)


def _number(value: object, default: int) -> int:
    is_usable = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40
    return cast("int", value) if is_usable else default


def _fields(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}
