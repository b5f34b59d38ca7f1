"""Convert the engine's events of one request to message events of the API.

server/messages/completion.py feeds it and stops generating once `is_ended`. Invariant: however the
detokenizer splits the text, the events are the same after merging consecutive deltas, and no text
is lost or invented. Knows no HTTP and does not call the engine.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from pensieve.api.base import new_id
from pensieve.api.messages.content_blocks import Breakpoint, Ttl
from pensieve.api.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Delta,
    InputJsonDelta,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
    ScoredTextDelta,
    SignatureDelta,
    StopDelta,
    TextDelta,
    ThinkingDelta,
)
from pensieve.api.messages.logprobs import TextLogprob
from pensieve.api.messages.message import (
    AnswerContent,
    CacheCreation,
    ContextEdits,
    DeltaUsage,
    Message,
    OutputTokensDetails,
    StopReason,
    TextContent,
    ThinkingContent,
    ToolUseContent,
    Usage,
)
from pensieve.api.messages.signatures import signature_of
from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.grammar.schema_validation import admits
from pensieve.engine.generation import (
    Admitted,
    Drafted,
    EngineEvent,
    Finished,
    FinishReason,
    Prefilled,
    Requeued,
    Started,
    Token,
)
from pensieve.prompt.chat_tokenizer import Detokenizer
from pensieve.reply.answer_parser import AnswerParser
from pensieve.reply.parse_events import (
    ParseEvent,
    Text,
    Thought,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from pensieve.reply.stop_sequences import StopScanner
from pensieve.reply.text_logprobs import TextLogprobs

_log = logging.getLogger("pensieve.reply")


@dataclass(frozen=True, slots=True)
class ReplyContext:
    """What an answer depends on besides its tokens: parts of the request and of the prompt."""

    message_id: str
    model: str
    prompt_tokens: int
    length_stop: StopReason  # reported if the token limit ends the answer
    form: AnswerFormat
    stop_sequences: tuple[str, ...] = ()
    breakpoints: tuple[Breakpoint, ...] = ()
    edits: ContextEdits | None = None  # applied to the context; None if the client asked for none
    is_silent: bool = False  # the client wants the prompt processed and no answer
    hides_thoughts: bool = False  # thinking blocks stay empty but for their signature


class Reply:
    """Owns one answer's state. One task feeds it, from `Started` to the end."""

    def __init__(
        self,
        context: ReplyContext,
        detokenizer: Detokenizer,
        logprobs: TextLogprobs | None = None,  # None: texts come without logprobs
    ) -> None:
        self._context = context
        self._logprobs = logprobs
        self._detokenizer = detokenizer
        self._parser = AnswerParser(context.form, has_spans=logprobs is not None)
        sequences = context.stop_sequences
        self._scanner = StopScanner(sequences) if sequences else None
        self._blocks = BlockWriter(hides_thoughts=context.hides_thoughts)
        self._cached_tokens = 0
        self._output_tokens = 0
        self._thinking_tokens = 0
        self._has_begun = False
        self.is_ended = False  # the answer is complete: further engine events are ignored
        self._open_tool: str | None = None  # the tool whose call is being parsed
        self._tool_input: list[str] = []  # its input so far

    @property
    def usage(self) -> Usage:
        prompt = prompt_usage(
            self._context.prompt_tokens, self._cached_tokens, self._context.breakpoints
        )
        return Usage(
            input_tokens=prompt.rest,
            cache_read_input_tokens=prompt.read,
            cache_creation_input_tokens=prompt.written_5m + prompt.written_1h,
            cache_creation=CacheCreation(
                ephemeral_5m_input_tokens=prompt.written_5m,
                ephemeral_1h_input_tokens=prompt.written_1h,
            ),
            output_tokens=self._output_tokens,
            output_tokens_details=OutputTokensDetails(thinking_tokens=self._thinking_tokens),
        )

    def feed(self, event: EngineEvent) -> list[MessageEvent]:
        """Return the message events for `event`; none during prefill or after the end."""
        if self.is_ended:
            return []
        match event:
            case Started(cached_tokens):
                return self._begin(cached_tokens)
            case Admitted() | Requeued() | Prefilled() | Drafted():
                return []
            case Token() | Finished() if self._context.is_silent:
                return self._end("max_tokens")
            case Token():
                self._output_tokens += 1
                return self._read_token(event)
            case Finished(reason, output_tokens):
                self._output_tokens = output_tokens
                return self._finish(reason)
            case _:
                assert_never(event)

    def _begin(self, cached_tokens: int) -> list[MessageEvent]:
        """Return `message_start` once. A later `cached_tokens` appears in the final usage."""
        self._cached_tokens = cached_tokens
        if self._has_begun:
            return []
        self._has_begun = True
        message = Message(id=self._context.message_id, model=self._context.model, usage=self.usage)
        return [MessageStart(message=message)]

    def _read_token(self, token: Token) -> list[MessageEvent]:
        piece = self._detokenizer.feed(token.token_id)
        if self._logprobs is not None:
            self._logprobs.note_token(token, piece)
        was_in_thought = self._parser.is_in_thought
        parsed = self._parser.feed(piece)
        self._thinking_tokens += was_in_thought or self._parser.is_in_thought
        return self._write(parsed)

    def _write(self, parsed: list[ParseEvent]) -> list[MessageEvent]:
        events: list[MessageEvent] = []
        for event in parsed:
            if not self.is_ended:
                events += self._write_event(event)
        return events

    def _write_event(self, event: ParseEvent) -> list[MessageEvent]:
        # Stop sequences count in text alone, and do not span thoughts or calls.
        if isinstance(event, Text):
            return self._write_scanned(event)
        before = self._write_held()
        if self._logprobs is not None:
            before += self._end_text(self._logprobs)
        match event:
            case Thought(text):
                return before + self._blocks.write_thought(text)
            case ToolCallStart(name):
                self._open_tool, self._tool_input = name, []
                return before
            case ToolCallDelta(text):
                return before + self._write_tool_input(text)
            case ToolCallEnd(is_whole):
                return before + self._end_call(is_whole=is_whole)
            case _:
                assert_never(event)

    def _write_tool_input(self, text: str) -> list[MessageEvent]:
        """Write input of the open call. One that is cut before it would look like one without."""
        assert self._open_tool is not None
        opened = [] if self._tool_input else self._blocks.open_tool_use(self._open_tool)
        self._tool_input.append(text)
        return [*opened, *self._blocks.write_tool_input(text)]

    def _end_call(self, *, is_whole: bool) -> list[MessageEvent]:
        if not is_whole:
            _log.warning("invalid input in a call of %s, ending the answer", self._tool)
            # Clients treat this answer as incomplete; after "tool_use" they would run the call.
            return self._end("max_tokens")
        if not self._is_valid():
            _log.warning("input in a call of %s violates its schema, passing it on", self._tool)
        self._open_tool = None
        return self._blocks.close()

    @property
    def _tool(self) -> str:
        """The open tool, for the log, which must not repeat a client's names."""
        names = list(self._context.form.tools)
        if self._open_tool not in names:
            return "an unknown tool"
        return f"tool {names.index(self._open_tool) + 1} of {len(names)}"

    def _is_valid(self) -> bool:
        """Check the tool's input against its schema, which a grammar may enforce only in part."""
        schema = self._context.form.tools.get(self._open_tool or "")
        return schema is None or admits(schema, json.loads("".join(self._tool_input)), schema)

    def _write_scanned(self, parsed: Text) -> list[MessageEvent]:
        if self._logprobs is not None:
            self._logprobs.note_spans(parsed.spans)
        if self._scanner is None:
            return self._write_text(parsed.text)
        scanned = self._scanner.feed(parsed.text)
        events = self._write_text(scanned.text)
        if scanned.matched is not None:
            events += self._end("stop_sequence", scanned.matched)
        return events

    def _write_text(self, text: str) -> list[MessageEvent]:
        """Write text of the answer; with logprobs, as far as it is whole tokens."""
        if self._logprobs is None:
            return self._blocks.write_text(text)
        return self._blocks.write_text(*self._logprobs.feed(text))

    def _write_held(self) -> list[MessageEvent]:
        """Write the text that might have begun a stop sequence."""
        return [] if self._scanner is None else self._write_text(self._scanner.flush())

    def _end_text(self, logprobs: TextLogprobs) -> list[MessageEvent]:
        """Write the part of a token whose rest is not in the text."""
        return self._blocks.write_text(*logprobs.flush())

    def _finish(self, reason: FinishReason) -> list[MessageEvent]:
        piece = self._detokenizer.flush()
        if self._logprobs is not None:
            self._logprobs.note_end(piece)
        events = self._write(self._parser.feed(piece))
        events += self._write(self._parser.flush(is_cut=reason == "length"))
        if self.is_ended:
            return events
        if self._scanner is not None:
            events += self._write_text(self._scanner.flush())
        return events + self._end(self._stop_reason(reason))

    def _stop_reason(self, reason: FinishReason) -> StopReason:
        if self._open_tool is not None:
            _log.warning("answer ended within a call of %s: %s", self._tool, reason)
        if reason == "length":
            return self._context.length_stop
        if self._open_tool is not None:
            return "max_tokens"
        return "tool_use" if self._blocks.has_tool_use else "end_turn"

    def _end(self, reason: StopReason, sequence: str | None = None) -> list[MessageEvent]:
        self.is_ended = True
        return [
            *([] if self._logprobs is None else self._end_text(self._logprobs)),
            *self._blocks.close(),
            MessageDelta(
                delta=StopDelta(stop_reason=reason, stop_sequence=sequence),
                usage=self._delta_usage(),
                context_management=self._context.edits,
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


# Usage.


@dataclass(frozen=True, slots=True)
class PromptUsage:
    """Token counts, whose sum is the prompt."""

    read: int
    written_5m: int
    written_1h: int
    rest: int


def prompt_usage(
    prompt_tokens: int, cached_tokens: int, breakpoints: Sequence[Breakpoint]
) -> PromptUsage:
    """Split `prompt_tokens`, of which the first `cached_tokens` needed no processing.

    Tokens count as read if they needed none, with or without a breakpoint, and as written if they
    were processed and precede the last cache breakpoint.
    """
    written: dict[Ttl, int] = {"5m": 0, "1h": 0}
    reached = cached_tokens
    for mark in sorted(breakpoints, key=lambda mark: mark.tokens):
        written[mark.ttl] += max(0, mark.tokens - reached)
        reached = max(reached, mark.tokens)
    return PromptUsage(
        read=cached_tokens,
        written_5m=written["5m"],
        written_1h=written["1h"],
        rest=prompt_tokens - reached,
    )


# Content blocks.


class BlockWriter:
    """Writes content blocks as events. Owns which one is open, at most one, and its index."""

    def __init__(self, *, hides_thoughts: bool) -> None:
        self._hides_thoughts = hides_thoughts  # they are only in the signature
        self._block: AnswerContent | None = None  # the open one, as it began
        self._thought: list[str] = []  # the open block's so far
        self._index = -1
        self.has_tool_use = False

    def write_text(
        self, text: str, logprobs: tuple[TextLogprob, ...] | None = None
    ) -> list[MessageEvent]:
        if not text:
            return []
        events: list[MessageEvent] = []
        if not isinstance(self._block, TextContent):
            events = self._open(TextContent(text=""))
        if logprobs is None:
            return [*events, self._delta(TextDelta(text=text))]
        return [*events, self._delta(ScoredTextDelta(text=text, logprobs=logprobs))]

    def write_thought(self, text: str) -> list[MessageEvent]:
        events: list[MessageEvent] = []
        if not isinstance(self._block, ThinkingContent):
            events = self._open(ThinkingContent(thinking="", signature=""))
        self._thought.append(text)
        if not self._hides_thoughts:
            events.append(self._delta(ThinkingDelta(thinking=text)))
        return events

    def open_tool_use(self, name: str) -> list[MessageEvent]:
        self.has_tool_use = True
        return self._open(ToolUseContent(id=new_id("toolu"), name=name, input={}))

    def write_tool_input(self, text: str) -> list[MessageEvent]:
        assert isinstance(self._block, ToolUseContent)
        return [self._delta(InputJsonDelta(partial_json=text))]

    def close(self) -> list[MessageEvent]:
        """Close the open block, if any."""
        if self._block is None:
            return []
        events: list[MessageEvent] = []
        if isinstance(self._block, ThinkingContent):
            thought = "".join(self._thought)
            signature = signature_of(thought, carries_text=self._hides_thoughts)
            events.append(self._delta(SignatureDelta(signature=signature)))
        self._block, self._thought = None, []
        return [*events, ContentBlockStop(index=self._index)]

    def _open(self, block: AnswerContent) -> list[MessageEvent]:
        closing = self.close()
        self._index += 1
        self._block = block
        return [*closing, ContentBlockStart(index=self._index, content_block=block)]

    def _delta(self, delta: Delta) -> ContentBlockDelta:
        return ContentBlockDelta(index=self._index, delta=delta)
