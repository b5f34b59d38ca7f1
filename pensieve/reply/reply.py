"""Engine events in, message events out: one answer's way from tokens to Anthropic's words.

Law: the same tokens cut anyhow give the same events after merging deltas that follow each other; no text is lost,
none invented. It knows no HTTP and no engine: whoever drives it leaves the engine's block when `is_ended`.
"""

from dataclasses import dataclass
from typing import assert_never

from pensieve.api.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
    StopDelta,
    TextDelta,
)
from pensieve.api.message import (
    CacheCreation,
    ContextEdits,
    DeltaUsage,
    Message,
    StopReason,
    TextContent,
    Usage,
)
from pensieve.api.usage import Breakpoint, prompt_usage
from pensieve.engine.generation import (
    EngineEvent,
    Finished,
    FinishReason,
    Prefilled,
    Started,
    Token,
)
from pensieve.prompt.template import Detokenizer
from pensieve.reply.stop_sequences import Scanned, StopScanner


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer has to know of its call and its prompt.

    length_stop: what it means when the length ends it. breakpoints: the places that the client marked for the cache.
    edits: what was done to the context, where the client asked. is_silent: only the prompt was to be processed.
    """

    message_id: str
    model: str
    prompt_tokens: int
    length_stop: StopReason
    stop_sequences: tuple[str, ...] = ()
    breakpoints: tuple[Breakpoint, ...] = ()
    edits: ContextEdits | None = None
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class BetweenBlocks:
    """No block is open; the next one has this index."""

    index: int


@dataclass(frozen=True, slots=True)
class InText:
    """A text block is open."""

    index: int


@dataclass(frozen=True, slots=True)
class Ended:
    """All is said."""


State = BetweenBlocks | InText | Ended


class Reply:
    """Owns one answer's state. Fed by one driver, from `Started` to its end."""

    def __init__(self, asked: Asked, detokenizer: Detokenizer) -> None:
        self._asked = asked
        self._detokenizer = detokenizer
        self._scanner = StopScanner(asked.stop_sequences)
        self._state: State = BetweenBlocks(0)
        self._cached_tokens = 0
        self._output_tokens = 0

    @property
    def is_ended(self) -> bool:
        """The answer is whole: whatever the engine would still say is not wanted."""
        return isinstance(self._state, Ended)

    @property
    def usage(self) -> Usage:
        """What the answer has cost up to now."""
        prompt = prompt_usage(
            self._asked.prompt_tokens, self._cached_tokens, self._asked.breakpoints
        )
        return Usage(
            input_tokens=prompt.rest,
            cache_read_input_tokens=prompt.read,
            cache_creation_input_tokens=prompt.written,
            cache_creation=CacheCreation(
                ephemeral_5m_input_tokens=prompt.written_5m,
                ephemeral_1h_input_tokens=prompt.written_1h,
            ),
            output_tokens=self._output_tokens,
        )

    def feed(self, event: EngineEvent) -> list[MessageEvent]:
        """The message events that `event` brings; none for most of a prompt's processing, none after the end."""
        if self.is_ended:
            return []
        match event:
            case Started(cached_tokens):
                self._cached_tokens = cached_tokens
                return [self._start()]
            case Prefilled():
                return []
            case Token() | Finished() if self._asked.is_silent:
                return self._end("max_tokens")
            case Token(token_id):
                self._output_tokens += 1
                return self._say(self._scanner.feed(self._detokenizer.feed(token_id)))
            case Finished(reason, output_tokens):
                self._output_tokens = output_tokens
                return self._finish(reason)
            case _:
                assert_never(event)

    def _start(self) -> MessageStart:
        return MessageStart(
            message=Message(id=self._asked.message_id, model=self._asked.model, usage=self.usage)
        )

    def _say(self, scanned: Scanned) -> list[MessageEvent]:
        said = self._text(scanned.text)
        if scanned.matched is not None:
            said += self._end("stop_sequence", scanned.matched)
        return said

    def _finish(self, reason: FinishReason) -> list[MessageEvent]:
        said = self._say(self._scanner.feed(self._detokenizer.flush()))
        if self.is_ended:
            return said
        said += self._text(self._scanner.flush())
        return said + self._end("end_turn" if reason == "stop_token" else self._asked.length_stop)

    def _text(self, text: str) -> list[MessageEvent]:
        if not text:
            return []
        opening, index = self._open_text()
        return [*opening, ContentBlockDelta(index=index, delta=TextDelta(text=text))]

    def _open_text(self) -> tuple[list[MessageEvent], int]:
        match self._state:
            case InText(index):
                return [], index
            case BetweenBlocks(index):
                self._state = InText(index)
                start = ContentBlockStart(index=index, content_block=TextContent(text=""))
                return [start], index
            case Ended():
                raise AssertionError("text after the end")
            case _:
                assert_never(self._state)

    def _end(self, reason: StopReason, sequence: str | None = None) -> list[MessageEvent]:
        closing: list[MessageEvent] = []
        if isinstance(self._state, InText):
            closing = [ContentBlockStop(index=self._state.index)]
        self._state = Ended()
        return [
            *closing,
            MessageDelta(
                delta=StopDelta(stop_reason=reason, stop_sequence=sequence),
                usage=self._delta_usage(),
                context_management=self._asked.edits,
            ),
            MessageStop(),
        ]

    def _delta_usage(self) -> DeltaUsage:
        usage = self.usage
        return DeltaUsage(
            input_tokens=usage.input_tokens,
            cache_creation_input_tokens=usage.cache_creation_input_tokens,
            cache_read_input_tokens=usage.cache_read_input_tokens,
            output_tokens=usage.output_tokens,
        )
