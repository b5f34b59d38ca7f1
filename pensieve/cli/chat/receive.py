"""Requests one answer and shows it as it arrives; keeps text and timing, even if interrupted."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from pensieve.cli.chat.prompt_progress import PromptProgress, prompt_progress_of
from pensieve.cli.chat.view import View
from pensieve.cli.client.connection import Server
from pensieve.cli.client.messages import (
    Call,
    Event,
    StreamEnd,
    Text,
    Thought,
    Turn,
    Waiting,
    answer,
)
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import counted


@dataclass(frozen=True, slots=True)
class AnswerTiming:
    output_tokens: int
    first_text_s: float  # from the call to the first text or thought
    total_s: float

    @property
    def tokens_per_second(self) -> float | None:
        """Return the decode rate: the tokens after the first, over their time."""
        decoding_s = self.total_s - self.first_text_s
        if self.output_tokens < 2 or decoding_s <= 0:
            return None
        return (self.output_tokens - 1) / decoding_s

    def __str__(self) -> str:
        summary = f"{counted(self.output_tokens, 'token')} in {self.total_s:.1f} s"
        rate = self.tokens_per_second
        if rate is None:
            return summary
        return f"{summary} (first after {self.first_text_s:.1f} s), {rate:.1f} tokens per second"


class Answer:
    """Owns what has arrived of one answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_at = self._ended_at = clock()
        self._first_at: float | None = None
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self.end: StreamEnd | None = None  # set once the answer is complete

    @property
    def turn(self) -> Turn:
        """Return the turn so far. The thought is sent back only if it has a signature."""
        signature = self.end.signature if self.end else ""
        return Turn("assistant", "".join(self._texts), "".join(self._thoughts), signature)

    @property
    def timing(self) -> AnswerTiming:
        """Return the timing so far; the token count is 0 before the end."""
        first_at = self._ended_at if self._first_at is None else self._first_at
        tokens = self.end.output_tokens if self.end else 0
        return AnswerTiming(tokens, first_at - self._started_at, self._ended_at - self._started_at)

    def receive(self, server: Server, call: Call, view: View) -> None:
        """Request the answer and show it. Raises as `messages.answer`, and KeyboardInterrupt.

        What has arrived by then is kept.
        """
        self._started_at = self._clock()
        progress = prompt_progress_of(server, view)
        with closing(answer(server, call, progress.start)) as stream, output.echo_disabled():
            try:
                for event in stream:
                    if view.waits_until == "first text" and not isinstance(event, Waiting):
                        progress.stop()
                    self._handle(event, view, progress)
            finally:
                progress.stop()
                view.end()
                self._ended_at = self._clock()

    def _handle(self, event: Event, view: View, progress: PromptProgress) -> None:
        match event:
            case Text(text):
                self._mark_first()
                self._texts.append(text)
                view.add_text(text)
            case Thought(text):
                self._mark_first()
                self._thoughts.append(text)
                view.add_thought(text)
            case Waiting():
                if progress.is_stopped:
                    view.show_waiting(self._clock() - self._started_at)
            case StreamEnd():
                self.end = event

    def _mark_first(self) -> None:
        if self._first_at is None:
            self._first_at = self._clock()
