"""One answer received: asked for, shown as it comes, kept with its figures also where it is broken off."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from pensieve.cli.chat.view import View
from pensieve.cli.client.connection import Server
from pensieve.cli.client.messages import Call, StreamEnd, Text, Thought, Turn, Waiting, answer
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import counted


@dataclass(frozen=True, slots=True)
class Figures:
    """How fast an answer came. Seconds from the call: to the first word, thought or said, and to the end."""

    output_tokens: int
    first_text_s: float
    total_s: float

    @property
    def tokens_per_second(self) -> float | None:
        """The decode rate: what came after the first word, over the time that it took."""
        decoding_s = self.total_s - self.first_text_s
        if self.output_tokens < 2 or decoding_s <= 0:
            return None
        return (self.output_tokens - 1) / decoding_s

    def __str__(self) -> str:
        """As a person reads them."""
        said = f"{counted(self.output_tokens, 'token')} in {self.total_s:.1f} s"
        rate = self.tokens_per_second
        if rate is None:
            return said
        return f"{said} (first after {self.first_text_s:.1f} s), {rate:.1f} tokens per second"


class Answer:
    """Owns what has come of one answer. ended: None until it is whole."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_at = self._ended_at = clock()
        self._first_at: float | None = None
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self.ended: StreamEnd | None = None

    @property
    def turn(self) -> Turn:
        """The assistant's turn, as much as there is of it. A thought goes back only when it came with its signature."""
        signature = self.ended.signature if self.ended else ""
        return Turn("assistant", "".join(self._texts), "".join(self._thoughts), signature)

    @property
    def figures(self) -> Figures:
        """How fast it came; no tokens are known before the end."""
        first_at = self._ended_at if self._first_at is None else self._first_at
        tokens = self.ended.output_tokens if self.ended else 0
        return Figures(tokens, first_at - self._began_at, self._ended_at - self._began_at)

    def receive(self, server: Server, call: Call, view: View) -> None:
        """Ask, and show what comes. Raises as `messages.answer` does, and KeyboardInterrupt; what came by then is kept."""
        self._began_at = self._clock()
        with closing(answer(server, call)) as stream, output.typing_unseen():
            try:
                for event in stream:
                    self._take(event, view)
            finally:
                view.end()
                self._ended_at = self._clock()

    def _take(self, event: Text | Thought | Waiting | StreamEnd, view: View) -> None:
        match event:
            case Text(text):
                self._begin()
                self._texts.append(text)
                view.say(text)
            case Thought(text):
                self._begin()
                self._thoughts.append(text)
                view.think(text)
            case Waiting():
                view.wait(self._clock() - self._began_at)
            case StreamEnd():
                self.ended = event

    def _begin(self) -> None:
        if self._first_at is None:
            self._first_at = self._clock()
