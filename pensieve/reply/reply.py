"""Engine events in, message events out: one answer's way from tokens to Anthropic's words.

Law: the same tokens cut anyhow give the same events after merging deltas that follow each other; no text is lost,
none invented. It knows no HTTP and no engine: whoever drives it leaves the engine's block when `is_ended`.
"""

import json
import logging
from dataclasses import dataclass
from typing import assert_never

from pensieve.api.messages.events import (
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
    StopDelta,
)
from pensieve.api.messages.message import (
    CacheCreation,
    ContextEdits,
    DeltaUsage,
    Message,
    OutputTokensDetails,
    StopReason,
    Usage,
)
from pensieve.api.messages.usage import Breakpoint, prompt_usage
from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.grammar.schema_validation import admits
from pensieve.engine.generation import (
    EngineEvent,
    Finished,
    FinishReason,
    Prefilled,
    Started,
    Token,
)
from pensieve.prompt.chat_tokenizer import Detokenizer
from pensieve.reply.answer_parser import AnswerParser
from pensieve.reply.block_writer import BlockWriter
from pensieve.reply.parse_events import (
    ParseEvent,
    Text,
    Thought,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from pensieve.reply.stop_sequences import Scanned, StopScanner

_log = logging.getLogger("pensieve.reply")


@dataclass(frozen=True, slots=True)
class ReplyContext:
    """What an answer has to know of its call and its prompt.

    length_stop: what it means when the length ends it. breakpoints: the places that the client marked for the cache.
    edits: what was done to the context, where the client asked. is_silent: only the prompt was to be processed.
    form: how the answer is to be read. hides_thoughts: the client wants to know that there was a thought, not which.
    """

    message_id: str
    model: str
    prompt_tokens: int
    length_stop: StopReason
    form: AnswerFormat
    stop_sequences: tuple[str, ...] = ()
    breakpoints: tuple[Breakpoint, ...] = ()
    edits: ContextEdits | None = None
    is_silent: bool = False
    hides_thoughts: bool = False


class Reply:
    """Owns one answer's state. Fed by one driver, from `Started` to its end."""

    def __init__(self, asked: ReplyContext, detokenizer: Detokenizer) -> None:
        self._asked = asked
        self._detokenizer = detokenizer
        self._reader = AnswerParser(asked.form)
        self._scanner = StopScanner(asked.stop_sequences)
        self._blocks = BlockWriter(hides_thoughts=asked.hides_thoughts)
        self._cached_tokens = 0
        self._output_tokens = 0
        self._thinking_tokens = 0
        self._has_begun = False
        self._is_ended = False
        self._unfinished: str | None = None  # the tool whose call is being read
        self._given: list[str] = []  # its input so far
        self._has_broken_call = False

    @property
    def is_ended(self) -> bool:
        """The answer is whole: whatever the engine would still say is not wanted."""
        return self._is_ended

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
            output_tokens_details=OutputTokensDetails(thinking_tokens=self._thinking_tokens),
        )

    def feed(self, event: EngineEvent) -> list[MessageEvent]:
        """The message events that `event` brings; none for most of a prompt's processing, none after the end."""
        if self.is_ended:
            return []
        match event:
            case Started(cached_tokens):
                return self._begin(cached_tokens)
            case Prefilled():
                return []
            case Token() | Finished() if self._asked.is_silent:
                return self._end("max_tokens")
            case Token(token_id):
                self._output_tokens += 1
                return self._read(self._detokenizer.feed(token_id))
            case Finished(reason, output_tokens):
                self._output_tokens = output_tokens
                return self._finish(reason)
            case _:
                assert_never(event)

    def _begin(self, cached_tokens: int) -> list[MessageEvent]:
        """The message's start, once; what is told anew of the prompt's cost is in the usage at the end."""
        self._cached_tokens = cached_tokens
        if self._has_begun:
            return []
        self._has_begun = True
        message = Message(id=self._asked.message_id, model=self._asked.model, usage=self.usage)
        return [MessageStart(message=message)]

    def _read(self, piece: str) -> list[MessageEvent]:
        was_in_thought = self._reader.is_in_thought
        said = self._reader.feed(piece)
        self._thinking_tokens += was_in_thought or self._reader.is_in_thought
        return self._say(said)

    def _say(self, said: list[ParseEvent]) -> list[MessageEvent]:
        events: list[MessageEvent] = []
        for one in said:
            if not self._is_ended:
                events += self._event(one)
        return events

    def _event(self, said: ParseEvent) -> list[MessageEvent]:
        """Stop sequences are looked for in what is said, one text at a time."""
        if isinstance(said, Text):
            return self._scanned(self._scanner.feed(said.text))
        before = self._blocks.text(self._scanner.flush())
        match said:
            case Thought(text):
                return before + self._blocks.thought(text)
            case ToolCallStart(name):
                self._unfinished, self._given = name, []
                return before + self._blocks.open_tool_use(name)
            case ToolCallDelta(text):
                self._given.append(text)
                return before + self._blocks.tool_input(text)
            case ToolCallEnd(is_whole):
                self._end_call(is_whole=is_whole)
                return before + self._blocks.close()
            case _:
                assert_never(said)

    def _end_call(self, *, is_whole: bool) -> None:
        if not is_whole:
            _log.warning("the input of a call of %s is not whole: it breaks off", self._unfinished)
            self._has_broken_call = True
        elif not self._is_valid():
            _log.warning("the input of a call of %s does not obey its schema", self._unfinished)
        self._unfinished = None

    def _is_valid(self) -> bool:
        """Whether the input obeys the tool's schema: not all of it can be held while generating."""
        schema = self._asked.form.tools.get(self._unfinished or "")
        return schema is None or admits(schema, json.loads("".join(self._given)), schema)

    def _scanned(self, scanned: Scanned) -> list[MessageEvent]:
        said = self._blocks.text(scanned.text)
        if scanned.matched is not None:
            said += self._end("stop_sequence", scanned.matched)
        return said

    def _finish(self, reason: FinishReason) -> list[MessageEvent]:
        events = self._say(self._reader.feed(self._detokenizer.flush()))
        events += self._say(self._reader.flush(is_cut=reason == "length"))
        if self._is_ended:
            return events
        events += self._blocks.text(self._scanner.flush())
        return events + self._end(self._reason(reason))

    def _reason(self, reason: FinishReason) -> StopReason:
        if self._unfinished is not None:
            _log.warning("the input of a call of %s is not whole: %s", self._unfinished, reason)
        if reason == "length":
            return self._asked.length_stop
        if self._unfinished is not None or self._has_broken_call:
            # What a client takes for an answer that is not whole; after "tool_use" it would run the call.
            return "max_tokens"
        return "tool_use" if self._blocks.has_tool_use else "end_turn"

    def _end(self, reason: StopReason, sequence: str | None = None) -> list[MessageEvent]:
        self._is_ended = True
        return [
            *self._blocks.close(),
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
            output_tokens_details=usage.output_tokens_details,
        )
