"""Folds the message events of one answer into its parts of chunks and of the whole completion.

chat_chunks.py joins the answers to one prompt.
"""

from dataclasses import dataclass, field
from typing import assert_never

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
    TextDelta,
    ThinkingDelta,
)
from pensieve.api.messages.logprobs import TextLogprob
from pensieve.api.messages.message import DeltaUsage, StopReason, ToolUseContent
from pensieve.openai.calls import call_id, is_whole, text_input
from pensieve.openai.chat_completion import (
    AnswerMessage,
    AnyToolCall,
    CalledCustomTool,
    CalledFunction,
    Choice,
    ChoiceDelta,
    ChoiceLogprobs,
    ChunkChoice,
    CustomToolCall,
    FinishReason,
    FunctionDelta,
    FunctionToolCall,
    ToolCallDelta,
)

FINISH_REASONS: dict[StopReason, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    is_custom: bool
    pieces: list[str] = field(default_factory=list[str])

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    @property
    def custom(self) -> CalledCustomTool:
        return CalledCustomTool(name=self.name, input=text_input(self.arguments))

    @property
    def whole(self) -> AnyToolCall:
        if self.is_custom:
            return CustomToolCall(id=self.id, custom=self.custom)
        function = CalledFunction(name=self.name, arguments=self.arguments)
        return FunctionToolCall(id=self.id, function=function)


class ChoiceFold:
    """Owns one answer while its message events arrive."""

    def __init__(self, index: int, custom_tools: frozenset[str]) -> None:
        self._index = index
        self._custom_tools = custom_tools
        self._end: MessageDelta | None = None
        self._texts: list[str] = []
        self._logprobs: list[TextLogprob] | None = None  # None: its texts have none
        self._thoughts: list[str] = []
        self._calls: list[_Call] = []
        self._is_in_call = False
        self._has_role = False

    @property
    def usage(self) -> DeltaUsage | None:
        """Known at the end."""
        return None if self._end is None else self._end.usage

    @property
    def whole(self) -> Choice:
        """Return the whole answer. Requires all its events."""
        assert self._end is not None
        text, thought = "".join(self._texts), "".join(self._thoughts) or None
        message = AnswerMessage(
            content=None if self._calls and not text else text,
            reasoning_content=thought,
            reasoning=thought,
            tool_calls=tuple(call.whole for call in self._calls) or None,
        )
        logprobs = self._logprobs
        return Choice(
            index=self._index,
            message=message,
            logprobs=None if logprobs is None else ChoiceLogprobs(content=tuple(logprobs)),
            finish_reason=FINISH_REASONS[self._end.delta.stop_reason],
        )

    def feed(self, event: MessageEvent) -> list[ChunkChoice]:
        """Return the chunks of an event; the role comes with the first ones that have content.

        Clients take the first chunk for the end of the prompt's processing (llama-benchy 0.4.0).
        """
        chunks = self._chunks_of(event)
        if self._has_role or not chunks:
            return chunks
        self._has_role = True
        return [self._chunk(ChoiceDelta(role="assistant", content="")), *chunks]

    def _chunks_of(self, event: MessageEvent) -> list[ChunkChoice]:
        match event:
            case ContentBlockStart(content_block=ToolUseContent(id=use_id, name=name)):
                return self._open_call(use_id, name)
            case ContentBlockDelta(delta=delta):
                return self._add(delta)
            case ContentBlockStop() if self._is_in_call:
                return self._close_call()
            case MessageDelta():
                self._end = event
                return [self._chunk(ChoiceDelta(), FINISH_REASONS[event.delta.stop_reason])]
            case MessageStart() | ContentBlockStart() | ContentBlockStop() | MessageStop():
                return []
            case _:
                assert_never(event)

    def _add(self, delta: Delta) -> list[ChunkChoice]:
        match delta:
            case TextDelta(text=text):
                return [self._add_text(text, delta)]
            case ThinkingDelta(thinking=text):
                self._thoughts.append(text)
                return [self._chunk(ChoiceDelta(reasoning_content=text, reasoning=text))]
            case InputJsonDelta(partial_json=text):
                call = self._calls[-1]
                call.pieces.append(text)
                # The input of a custom tool is text within JSON, which is sent when it is whole.
                return [] if call.is_custom else [self._arguments(text)]
            case SignatureDelta():
                return []
            case _:
                assert_never(delta)

    def _add_text(self, text: str, delta: TextDelta) -> ChunkChoice:
        self._texts.append(text)
        chunk = self._chunk(ChoiceDelta(content=text))
        if not isinstance(delta, ScoredTextDelta):
            return chunk
        self._logprobs = self._logprobs or []
        self._logprobs += delta.logprobs
        return chunk.model_copy(update={"logprobs": ChoiceLogprobs(content=delta.logprobs)})

    def _open_call(self, use_id: str, name: str) -> list[ChunkChoice]:
        self._is_in_call = True
        call = _Call(call_id(use_id), name, name in self._custom_tools)
        self._calls.append(call)
        if call.is_custom:
            return []
        function = FunctionDelta(name=name, arguments="")
        index = len(self._calls) - 1
        return [
            self._call_chunk(
                ToolCallDelta(index=index, id=call.id, type="function", function=function)
            )
        ]

    def _close_call(self) -> list[ChunkChoice]:
        self._is_in_call = False
        call = self._calls[-1]
        if not call.is_custom:
            return []
        if not is_whole(call.arguments):
            # A text does not show that it was cut off: a client would run the call.
            self._calls.pop()
            return []
        index = len(self._calls) - 1
        return [
            self._call_chunk(
                ToolCallDelta(index=index, id=call.id, type="custom", custom=call.custom)
            )
        ]

    def _arguments(self, text: str) -> ChunkChoice:
        return self._call_chunk(
            ToolCallDelta(index=len(self._calls) - 1, function=FunctionDelta(arguments=text))
        )

    def _call_chunk(self, delta: ToolCallDelta) -> ChunkChoice:
        return self._chunk(ChoiceDelta(tool_calls=(delta,)))

    def _chunk(self, delta: ChoiceDelta, finish_reason: FinishReason | None = None) -> ChunkChoice:
        return ChunkChoice(index=self._index, delta=delta, finish_reason=finish_reason)
