"""The rows at the bottom of the terminal that may still change, redrawn in place.

What is finished is written once and scrolls away for good. What is not is never taller than the terminal, so it can be
reached; of a taller one its end is shown. Only rows that differ are written, in one write, between the marks of a
synchronized update (terminals that do not know those ignore them). Knows no markdown.
"""

from collections.abc import Callable, Sequence
from itertools import takewhile

from pensieve.cli.chat.markdown_rows import Row

BEGIN, END = "\x1b[?2026h\x1b[?25l", "\x1b[?25h\x1b[?2026l"
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
ERASE_LINE, ERASE_BELOW = "\x1b[K", "\x1b[J"

Size = tuple[int, int]


class Screen:
    """Owns what of the terminal is shown and may change. size: its columns and lines now."""

    def __init__(self, write: Callable[[str], None], size: Callable[[], Size]) -> None:
        self._write = write
        self._size = size
        self._shown: list[Row] = []
        self._columns = size()[0]

    @property
    def columns(self) -> int:
        """How wide the terminal is now."""
        return self._size()[0]

    def draw(self, finished: Sequence[Row], live: Sequence[Row]) -> None:
        """Write `finished` for good in the place of the live rows, and `live` below it."""
        columns, lines = self._size()
        seen = list(live[-max(1, lines - 1) :])
        rows = [*finished, *seen]
        kept = self._kept(rows, columns)
        drawn = [_on_terminal(row, columns) for row in finished[kept:]]
        drawn += [
            NO_WRAP + _on_terminal(row, columns) + WRAP
            for row in seen[max(0, kept - len(finished)) :]
        ]
        written = self._way_to(kept, columns) if drawn or kept < len(self._shown) else ""
        written += "\r\n".join(drawn)
        if kept < len(self._shown) and not (drawn and _is_full(rows[-1], columns)):
            written += ERASE_BELOW
        if rows and not seen:
            written += "\r\n"
        self._shown, self._columns = seen, columns
        if written:
            self._write(BEGIN + written + END)

    def _kept(self, rows: Sequence[Row], columns: int) -> int:
        """How many of the shown rows stay as they are. The last of `rows` is written where rows below it must go."""
        if columns != self._columns:
            return 0
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(self._shown, rows, strict=False))
        same = sum(1 for _ in pairs)
        return min(same, max(0, len(rows) - 1)) if len(rows) < len(self._shown) else same

    def _way_to(self, kept: int, columns: int) -> str:
        """From the end of the last shown row to where row `kept` begins."""
        if kept == len(self._shown):
            return "\r\n" if kept else ""
        up = sum(_height(row, columns) for row in self._shown[kept:]) - 1
        return f"\r\x1b[{up}A" if up else "\r"


def _height(row: Row, columns: int) -> int:
    """How many lines a row takes on a terminal that has broken it anew after it became narrower."""
    return max(1, -(-row.cells // columns))


def _is_full(row: Row, columns: int) -> bool:
    """Whether the cursor stands on its last character once it is written: an erasure would take that."""
    return row.cells >= columns


def _on_terminal(row: Row, columns: int) -> str:
    """What is right of a row goes; of a full one, and all that is below it, beforehand."""
    return ERASE_BELOW + row.text if _is_full(row, columns) else row.text + ERASE_LINE
