"""Displays an answer: as markdown on a terminal, as plain text, buffered, or not at all."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from pensieve.cli.ui import output
from pensieve.cli.ui.escapes import EscapeStripper

if TYPE_CHECKING:
    from pensieve.cli.chat.markdown_blocks import Piece
    from pensieve.cli.chat.markdown_rows import Row, Rows
    from pensieve.cli.chat.screen import Screen

# Between two drawings of unfinished rows; a higher rate is not visible.
MIN_INTERVAL_S = 1 / 30


class View(Protocol):
    """Receives one answer in pieces. `end` is called once, even if the answer is interrupted."""

    def show_waiting(self, waited_s: float) -> None:
        """Report that nothing has arrived for `waited_s`."""
        ...

    def add_thought(self, text: str) -> None:
        """Add a piece of a thought; empty when it begins."""
        ...

    def add_text(self, text: str) -> None: ...

    def end(self) -> None: ...


class NoView:
    def show_waiting(self, waited_s: float) -> None: ...

    def add_thought(self, text: str) -> None: ...

    def add_text(self, text: str) -> None: ...

    def end(self) -> None: ...


class PlainView:
    """Prints the text as it arrives, without terminal control.

    write: prints the answer. write_thought: prints the thought, None to hide it.
    """

    def __init__(
        self,
        write: Callable[[str], None] = output.stream,
        write_thought: Callable[[str], None] | None = None,
    ) -> None:
        self._write = write
        self._write_thought = write_thought
        self._answer, self._thought = EscapeStripper(), EscapeStripper()
        self._is_thinking = self._has_text = False

    def show_waiting(self, waited_s: float) -> None: ...

    def add_thought(self, text: str) -> None:
        if self._write_thought and text:
            self._is_thinking = True
            self._write_thought(self._thought.feed(text))

    def add_text(self, text: str) -> None:
        self._end_thought()
        self._has_text = True
        self._write(self._answer.feed(text))

    def end(self) -> None:
        self._end_thought()
        if self._has_text:
            self._write("\n")

    def _end_thought(self) -> None:
        if self._is_thinking and self._write_thought:
            self._write_thought("\n\n")
        self._is_thinking = False


class BufferedView:
    """Owns the answer until it is complete, and shows it then."""

    def __init__(self, inner: View) -> None:
        self._inner = inner
        self._thoughts: list[str] = []
        self._texts: list[str] = []

    def show_waiting(self, waited_s: float) -> None:
        self._inner.show_waiting(waited_s)

    def add_thought(self, text: str) -> None:
        self._thoughts.append(text)

    def add_text(self, text: str) -> None:
        self._texts.append(text)

    def end(self) -> None:
        if thought := "".join(self._thoughts):
            self._inner.add_thought(thought)
        if text := "".join(self._texts):
            self._inner.add_text(text)
        self._inner.end()


class DrawnView:
    """Draws markdown as it arrives: finished blocks for good, the rest redrawn in place.

    Owns the blocks of one answer and the time of the last drawing.
    """

    def __init__(
        self,
        rows: "Rows",
        screen: "Screen",
        *,
        hides_thoughts: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from pensieve.cli.chat.markdown_blocks import Blocks

        self._blocks = Blocks()
        self._rows, self._screen = rows, screen
        self._hides_thoughts = hides_thoughts
        self._clock = clock
        self._answer, self._thought = EscapeStripper(), EscapeStripper()
        self._thinking = self._note = ""
        self._has_above = False
        self._pending: list[Row] = []
        self._drawn_at = float("-inf")

    def show_waiting(self, waited_s: float) -> None:
        """Show the waiting time until there is text, and draw pending rows."""
        self._note = f"waiting for the answer, {waited_s:.0f} s …" if waited_s >= 1 else "…"
        self._draw(is_urgent=True)

    def add_thought(self, text: str) -> None:
        self._note = "thinking …"
        if not self._hides_thoughts:
            *lines, self._thinking = (self._thinking + self._thought.feed(text)).split("\n")
            self._pending += [row for line in lines for row in self._thought_rows(line)]
        self._draw()

    def add_text(self, text: str) -> None:
        self._end_thought()
        self._note = ""
        self._finish(self._blocks.feed(self._answer.feed(text)))
        self._draw()

    def end(self) -> None:
        self._end_thought()
        self._note = ""
        self._finish(self._blocks.end())
        self._draw(is_urgent=True)

    def _finish(self, pieces: "Sequence[Piece]") -> None:
        self._pending += self._layout(pieces, folds=False)
        self._has_above = self._has_above or bool(pieces)

    def _end_thought(self) -> None:
        if self._thinking:
            self._pending += self._thought_rows(self._thinking)
        self._thinking = ""

    def _thought_rows(self, line: str) -> "list[Row]":
        if not line.strip():
            return []
        self._has_above = True
        return self._rows.of_thought(line.strip(), self._screen.columns)

    def _layout(self, pieces: "Sequence[Piece]", *, folds: bool) -> "list[Row]":
        """Return the rows of `pieces`, with a blank row above each block except the first."""
        from pensieve.cli.chat.markdown_blocks import FenceOpening, Prose
        from pensieve.cli.chat.markdown_rows import BLANK

        rows: list[Row] = []
        for piece in pieces:
            is_next = isinstance(piece, Prose) and piece.is_next
            begins = isinstance(piece, Prose | FenceOpening) and not is_next
            if begins and (rows or self._has_above):
                rows.append(BLANK)
            rows += self._rows.of(piece, self._screen.columns, folds=folds)
        return rows

    def _draw(self, *, is_urgent: bool = False) -> None:
        now = self._clock()
        if not is_urgent and now - self._drawn_at < MIN_INTERVAL_S:
            return
        self._screen.draw(self._pending, self._live())
        self._pending, self._drawn_at = [], now

    def _live(self) -> "list[Row]":
        columns = self._screen.columns
        if rest := self._layout(self._blocks.rest(), folds=True):
            return rest
        if self._thinking.strip():
            return self._rows.of_thought(self._thinking.strip(), columns)
        return self._rows.of_note(self._note, columns) if self._note else []
