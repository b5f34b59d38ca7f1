"""What the decoding process answers: values of both processes."""

from dataclasses import dataclass
from enum import StrEnum

MAX_PAGES = 100  # Anthropic's
# Ten times the longest context.
MAX_CHARS = 8_000_000

# The text of each page; None for one that is damaged.
PdfPages = tuple[str | None, ...]
# The width and height of each page in pixels; None for one that is damaged.
PageSizes = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    width: int
    height: int
    pixels: bytes  # three for each, red, green and blue, row by row


class Refusal(StrEnum):
    """Why a file is not read."""

    ENCRYPTED = "encrypted"
    INVALID = "invalid"
    TOO_MANY_PAGES = "too_many_pages"
    TOO_LONG = "too_long"  # its text
    TOO_LARGE = "too_large"  # a picture's width and height
    TOO_COSTLY = "too_costly"  # its process reached a limit, or crashed
    NO_LIBRARY = "no_library"  # it does not load on this machine


class RefusedError(Exception):
    """The file is not read, for this reason."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
