"""Redraws in place the rows at the bottom of the terminal that may still change. Knows no markdown.

Finished rows are written once and scroll away. Live rows never exceed the terminal's height, so
that the cursor can reach them; only the end of a taller drawing is displayed. Only changed rows are
written, in one write, between the marks of a synchronized update (ignored by terminals without it).
"""

from collections.abc import Callable, Sequence
from itertools import takewhile

from pensieve.cli.chat.markdown_rows import Row

BEGIN, END = "\x1b[?2026h\x1b[?25l", "\x1b[?25h\x1b[?2026l"
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
ERASE_LINE, ERASE_BELOW = "\x1b[K", "\x1b[J"

Size = tuple[int, int]


class Screen:
    """Owns the live rows on the terminal. size: returns its current columns and lines."""

    def __init__(self, write: Callable[[str], None], size: Callable[[], Size]) -> None:
        self._write = write
        self._size = size
        self._live: list[Row] = []
        self._columns = size()[0]

    @property
    def columns(self) -> int:
        return self._size()[0]

    def draw(self, finished: Sequence[Row], live: Sequence[Row]) -> None:
        """Replace the live rows by `finished` for good, and draw `live` below."""
        columns, lines = self._size()
        visible = list(live[-max(1, lines - 1) :])
        rows = [*finished, *visible]
        unchanged = self._unchanged_count(rows, columns)
        drawn = [_on_terminal(row, columns) for row in finished[unchanged:]]
        drawn += [
            NO_WRAP + _on_terminal(row, columns) + WRAP
            for row in visible[max(0, unchanged - len(finished)) :]
        ]
        written = self._move_to(unchanged, columns) if drawn or unchanged < len(self._live) else ""
        written += "\r\n".join(drawn)
        if unchanged < len(self._live) and not (drawn and _is_full(rows[-1], columns)):
            written += ERASE_BELOW
        if rows and not visible:
            written += "\r\n"
        self._live, self._columns = visible, columns
        if written:
            self._write(BEGIN + written + END)

    def _unchanged_count(self, rows: Sequence[Row], columns: int) -> int:
        """Return how many displayed rows are unchanged.

        The last of `rows` is rewritten if rows below it must be erased.
        """
        if columns != self._columns:
            return 0
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(self._live, rows, strict=False))
        same = sum(1 for _ in pairs)
        return min(same, max(0, len(rows) - 1)) if len(rows) < len(self._live) else same

    def _move_to(self, unchanged: int, columns: int) -> str:
        """Return the cursor movement from the last displayed row to row `unchanged`."""
        if unchanged == len(self._live):
            return "\r\n" if unchanged else ""
        up = sum(_height(row, columns) for row in self._live[unchanged:]) - 1
        return f"\r\x1b[{up}A" if up else "\r"


def _height(row: Row, columns: int) -> int:
    """Return the lines of a row on a terminal that rewrapped it after becoming narrower."""
    return max(1, -(-row.cells // columns))


def _is_full(row: Row, columns: int) -> bool:
    """Return whether the cursor ends up on the last character, which an erasure would delete."""
    return row.cells >= columns


def _on_terminal(row: Row, columns: int) -> str:
    """Erase the rest of the line after a row; for a full row, erase everything below before it."""
    return ERASE_BELOW + row.text if _is_full(row, columns) else row.text + ERASE_LINE
