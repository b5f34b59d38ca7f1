"""How an answer is shown: drawn as markdown on a terminal, plain elsewhere, at once or when it is whole, or not at all."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from pensieve.cli.ui import output
from pensieve.cli.ui.escapes import EscapeStripper

if TYPE_CHECKING:
    from pensieve.cli.chat.markdown_blocks import Piece
    from pensieve.cli.chat.markdown_rows import Row, Rows
    from pensieve.cli.chat.screen import Screen

# Between two drawings of what is not finished. More often than this nobody sees.
MIN_INTERVAL_S = 1 / 30


class View(Protocol):
    """Takes one answer in, piece by piece. `end` comes once, also where the answer is broken off."""

    def wait(self, waited_s: float) -> None:
        """Nothing has come for so long."""
        ...

    def think(self, text: str) -> None:
        """A piece of a thought; empty where it begins."""
        ...

    def say(self, text: str) -> None:
        """A piece of the answer."""
        ...

    def end(self) -> None:
        """Nothing comes any more."""
        ...


class NoView:
    """Shows nothing."""

    def wait(self, waited_s: float) -> None:
        """Nothing."""

    def think(self, text: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class PlainView:
    """The text as it is said, freed of terminal control. Owns whether anything was shown.

    say: where the answer goes; murmur: where the thought does, None where it is not shown.
    """

    def __init__(
        self,
        say: Callable[[str], None] = output.stream,
        murmur: Callable[[str], None] | None = None,
    ) -> None:
        self._say = say
        self._murmur = murmur
        self._answer, self._thought = EscapeStripper(), EscapeStripper()
        self._is_thinking = self._has_said = False

    def wait(self, waited_s: float) -> None:
        """Nothing."""

    def think(self, text: str) -> None:
        """Show it, where thoughts are shown."""
        if self._murmur and text:
            self._is_thinking = True
            self._murmur(self._thought.feed(text))

    def say(self, text: str) -> None:
        """Show it, below the thought."""
        self._end_thought()
        self._has_said = True
        self._say(self._answer.feed(text))

    def end(self) -> None:
        """End the last line."""
        self._end_thought()
        if self._has_said:
            self._say("\n")

    def _end_thought(self) -> None:
        if self._is_thinking and self._murmur:
            self._murmur("\n\n")
        self._is_thinking = False


class BufferedView:
    """Owns the answer until it is whole and shows it then."""

    def __init__(self, inner: View) -> None:
        self._inner = inner
        self._thoughts: list[str] = []
        self._texts: list[str] = []

    def wait(self, waited_s: float) -> None:
        """Tell how long."""
        self._inner.wait(waited_s)

    def think(self, text: str) -> None:
        """Keep it."""
        self._thoughts.append(text)

    def say(self, text: str) -> None:
        """Keep it."""
        self._texts.append(text)

    def end(self) -> None:
        """Show all."""
        if thought := "".join(self._thoughts):
            self._inner.think(thought)
        if text := "".join(self._texts):
            self._inner.say(text)
        self._inner.end()


class DrawnView:
    """Markdown, drawn as it comes: finished blocks for good, the rest over and over in its place.

    Owns the blocks of one answer and when they were drawn last.
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
        self._due: list[Row] = []
        self._drawn_at = float("-inf")

    def wait(self, waited_s: float) -> None:
        """A line that tells how long, until there is something better to show. What is due is shown."""
        self._note = f"waiting for the answer, {waited_s:.0f} s …" if waited_s >= 1 else "…"
        self._draw(is_urgent=True)

    def think(self, text: str) -> None:
        """Dim; or only that it thinks."""
        self._note = "thinking …"
        if not self._hides_thoughts:
            *lines, self._thinking = (self._thinking + self._thought.feed(text)).split("\n")
            self._due += [row for line in lines for row in self._thought_rows(line)]
        self._draw()

    def say(self, text: str) -> None:
        """What it finishes for good, and the rest as it looks now."""
        self._end_thought()
        self._note = ""
        self._finish(self._blocks.feed(self._answer.feed(text)))
        self._draw()

    def end(self) -> None:
        """All of it for good."""
        self._end_thought()
        self._note = ""
        self._finish(self._blocks.end())
        self._draw(is_urgent=True)

    def _finish(self, pieces: "Sequence[Piece]") -> None:
        self._due += self._placed(pieces, folds=False)
        self._has_above = self._has_above or bool(pieces)

    def _end_thought(self) -> None:
        if self._thinking:
            self._due += self._thought_rows(self._thinking)
        self._thinking = ""

    def _thought_rows(self, line: str) -> "list[Row]":
        if not line.strip():
            return []
        self._has_above = True
        return self._rows.of_thought(line.strip(), self._screen.columns)

    def _placed(self, pieces: "Sequence[Piece]", *, folds: bool) -> "list[Row]":
        """The rows of `pieces`, with an empty one above each block but the first of all."""
        from pensieve.cli.chat.markdown_blocks import FenceOpening, Prose
        from pensieve.cli.chat.markdown_rows import BLANK

        placed: list[Row] = []
        for piece in pieces:
            is_next = isinstance(piece, Prose) and piece.is_next
            begins = isinstance(piece, Prose | FenceOpening) and not is_next
            if begins and (placed or self._has_above):
                placed.append(BLANK)
            placed += self._rows.of(piece, self._screen.columns, folds=folds)
        return placed

    def _draw(self, *, is_urgent: bool = False) -> None:
        now = self._clock()
        if not is_urgent and now - self._drawn_at < MIN_INTERVAL_S:
            return
        self._screen.draw(self._due, self._live())
        self._due, self._drawn_at = [], now

    def _live(self) -> "list[Row]":
        columns = self._screen.columns
        if rest := self._placed(self._blocks.rest(), folds=True):
            return rest
        if self._thinking.strip():
            return self._rows.of_thought(self._thinking.strip(), columns)
        return self._rows.of_note(self._note, columns) if self._note else []
