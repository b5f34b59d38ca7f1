"""Displays an answer: as markdown on a terminal, as plain text, buffered, or not at all."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from pensieve.cli.ui import output
from pensieve.cli.ui.escapes import EscapeStripper

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pensieve.cli.chat.blocks import Block
    from pensieve.cli.chat.drawing import Screen

# Between two drawings; a higher rate is not visible.
MIN_INTERVAL_S = 1 / 30


# Until when a view shows what is awaited.
WaitsUntil = Literal["never", "first text", "end"]


class View(Protocol):
    """Receives one answer in pieces. `end` is called once, even if the answer is interrupted."""

    waits_until: WaitsUntil

    def show_waiting(self, waited_s: float, text: str = "") -> None:
        """Report that nothing has arrived for `waited_s`, and what for, if that is known."""
        ...

    def add_thought(self, text: str) -> None:
        """Add a piece of a thought; empty when it begins."""
        ...

    def add_text(self, text: str) -> None: ...

    def end(self) -> None: ...


class NoView:
    waits_until: WaitsUntil = "never"

    def show_waiting(self, waited_s: float, text: str = "") -> None: ...

    def add_thought(self, text: str) -> None: ...

    def add_text(self, text: str) -> None: ...

    def end(self) -> None: ...


class PlainView:
    """Prints the text as it arrives, without terminal control.

    write: prints the answer. write_thought: prints the thought, None to hide it.
    """

    waits_until: WaitsUntil = "never"

    def __init__(
        self,
        write: Callable[[str], None] = output.stream,
        write_thought: Callable[[str], None] | None = None,
    ) -> None:
        self._write = write
        self._write_thought = write_thought
        self._answer, self._thought = EscapeStripper(), EscapeStripper()
        self._is_thinking = self._has_text = False

    def show_waiting(self, waited_s: float, text: str = "") -> None: ...

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
        self.waits_until: WaitsUntil = "never" if inner.waits_until == "never" else "end"
        self._thoughts: list[str] = []
        self._texts: list[str] = []

    def show_waiting(self, waited_s: float, text: str = "") -> None:
        self._inner.show_waiting(waited_s, text)

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

    waits_until: WaitsUntil = "first text"

    def __init__(
        self,
        screen: "Screen",
        *,
        hides_thoughts: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from pensieve.cli.chat import drawing
        from pensieve.cli.chat.blocks import MarkdownBlocks

        self._drawing = drawing
        self._blocks = MarkdownBlocks()
        self._screen = screen
        self._hides_thoughts = hides_thoughts
        self._clock = clock
        self._answer, self._thought = EscapeStripper(), EscapeStripper()
        self._thinking = self._note = ""
        self._has_above = False
        self._pending: list[RenderableType] = []
        self._next_at = float("-inf")

    def show_waiting(self, waited_s: float, text: str = "") -> None:
        """Show what is awaited until there is text, and draw what is pending."""
        waiting = f"waiting for the answer, {waited_s:.0f} s …" if waited_s >= 1 else "…"
        self._note = text or waiting
        self._draw()
        self._next_at = float("-inf")  # the text that replaces it is drawn at once

    def add_thought(self, text: str) -> None:
        self._note = "thinking …"
        if not self._hides_thoughts:
            *lines, self._thinking = (self._thinking + self._thought.feed(text)).split("\n")
            for line in lines:
                self._finish_thought(line)
        self._draw_sometimes()

    def add_text(self, text: str) -> None:
        self._end_thought()
        self._finish(self._blocks.feed(self._answer.feed(text)))
        self._draw_sometimes()

    def end(self) -> None:
        self._end_thought()
        self._finish(self._blocks.end())
        self._draw()

    def _end_thought(self) -> None:
        self._finish_thought(self._thinking)
        self._thinking = self._note = ""

    def _finish_thought(self, line: str) -> None:
        if line.strip():
            self._pending.append(self._drawing.thought(line.strip()))
            self._has_above = True

    def _finish(self, blocks: "Sequence[Block]") -> None:
        self._pending += self._spaced(blocks, is_live=False)
        self._has_above = self._has_above or bool(blocks)

    def _spaced(self, blocks: "Sequence[Block]", *, is_live: bool) -> "list[RenderableType]":
        """Return the drawings, with a blank row above each block except the first."""
        drawings: list[RenderableType] = []
        for block in blocks:
            if (drawings or self._has_above) and block.opens:
                drawings.append(self._drawing.BLANK)
            drawings.append(self._drawing.drawing_of(block, is_live=is_live))
        return drawings

    def _draw_sometimes(self) -> None:
        if self._clock() >= self._next_at:
            self._draw()

    def _draw(self) -> None:
        """Draw now. Waits longer before the next drawing if this one was slow."""
        started_at = self._clock()
        self._screen.draw(self._pending, self._live())
        self._pending = []
        ended_at = self._clock()
        self._next_at = ended_at + max(MIN_INTERVAL_S, ended_at - started_at)

    def _live(self) -> "list[RenderableType]":
        if rest := self._blocks.rest():
            return self._spaced(rest, is_live=True)
        if self._thinking.strip():
            return [self._drawing.thought(self._thinking.strip())]
        return [self._drawing.note(self._note)] if self._note else []
