"""A small terminal emulator: the position of all written text, including what has scrolled away.

It knows the sequences that the chat uses and refuses all others.
"""

import re

from rich.cells import cell_len

SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")


class Terminal:
    """Owns all rows and the cursor."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.columns, self.lines = columns, lines
        self._rows: list[list[str]] = [[]]
        self._row = self._column = 0
        self.writes: list[str] = []

    def size(self) -> tuple[int, int]:
        return self.columns, self.lines

    @property
    def rows(self) -> list[str]:
        """Return all rows, the oldest first, without trailing blanks."""
        return ["".join(row).rstrip() for row in self._rows]

    @property
    def text(self) -> str:
        return "\n".join(self.rows).rstrip("\n")

    def resize(self, columns: int, lines: int) -> None:
        """Rewrap rows that are now too wide, as terminals do; shorter rows are not joined."""
        broken: list[list[str]] = []
        for at, row in enumerate(self._rows):
            cells = row if any(c.strip() for c in row) else []
            parts = [cells[i : i + columns] for i in range(0, len(cells), columns)] or [[]]
            if at == self._row:
                self._row = len(broken) + len(parts) - 1
                self._column = len(parts[-1])
            broken += parts
        self._rows, self.columns, self.lines = broken, columns, lines

    def write(self, text: str) -> None:
        self.writes.append(text)
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = SEQUENCE.match(text, at)
                assert found, f"not one of the chat's sequences: {text[at : at + 12]!r}"
                self._obey(*found.groups())
                at = found.end()
            else:
                self._show(text[at])
                at += 1

    def _obey(self, numbers: str, letter: str) -> None:
        match letter, numbers:
            case "m", _:
                pass
            case "A", _:
                self._row = max(len(self._rows) - self.lines, 0, self._row - int(numbers or 1))
            case "K", "2":
                self._rows[self._row] = []
            case (("h" | "l"), "?2026"):
                pass
            case _:
                raise AssertionError(f"not one of the chat's sequences: {numbers}{letter}")

    def _show(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._down()
            self._column = 0
        else:
            assert character >= " ", repr(character)
            self._put(character, cell_len(character))

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append([])

    def _put(self, character: str, width: int) -> None:
        if self._column + width > self.columns:
            self._down()
            self._column = 0
        row = self._rows[self._row]
        row += " " * (self._column - len(row))
        if width:
            row[self._column : self._column + width] = [character, *[""] * (width - 1)]
        self._column += width
