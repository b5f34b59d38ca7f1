"""Where pieces of text are in an answer as it was generated."""

from collections.abc import Iterator, Sequence

# Offsets of the first character and the one after the last.
Span = tuple[int, int]


def part_of(spans: Sequence[Span], start: int, end: int) -> tuple[Span, ...]:
    """Return where the characters from `start` to `end` of a text are, of which `spans` are all."""
    return tuple(_parts_of(spans, start, end))


def _parts_of(spans: Sequence[Span], start: int, end: int) -> Iterator[Span]:
    before = 0
    for first, last in spans:
        low, high = max(start - before, 0), min(end - before, last - first)
        if low < high:
            yield first + low, first + high
        before += last - first
