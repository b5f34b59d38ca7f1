"""Folds the message events of one answer into chat chunks and their whole completion.

However the events cut a text, the joined chunks are the same, and the completion is what they add
up to.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never

from pydantic_core import from_json

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
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
)
from pensieve.api.messages.message import DeltaUsage, StopReason, ToolUseContent
from pensieve.openai.call_ids import call_id
from pensieve.openai.chat_completion import (
    AnswerMessage,
    AnyToolCall,
    CalledCustomTool,
    CalledFunction,
    ChatChunk,
    ChatChunkWithUsage,
    ChatCompletion,
    Choice,
    ChoiceDelta,
    ChunkChoice,
    CompletionTokensDetails,
    CompletionUsage,
    CustomToolCall,
    FinishReason,
    FunctionDelta,
    FunctionToolCall,
    PromptTokensDetails,
    ToolCallDelta,
)

FINISH_REASONS: dict[StopReason, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


@dataclass(frozen=True, slots=True)
class ChatAnswerOptions:
    created: int  # Unix seconds
    custom_tools: frozenset[str] = frozenset()
    includes_usage: bool = False  # in a stream
    service_tier: str | None = None


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    is_custom: bool
    pieces: list[str] = field(default_factory=list[str])

    @property
    def input(self) -> str:
        """The arguments as JSON, or a custom tool's input, as far as it was generated."""
        text = "".join(self.pieces)
        if not self.is_custom:
            return text or "{}"
        return str(from_json(text or "{}", allow_partial="trailing-strings").get("input", ""))

    @property
    def whole(self) -> AnyToolCall:
        if self.is_custom:
            return CustomToolCall(
                id=self.id, custom=CalledCustomTool(name=self.name, input=self.input)
            )
        return FunctionToolCall(
            id=self.id, function=CalledFunction(name=self.name, arguments=self.input)
        )


class ChatFold:
    """Owns one answer while its message events arrive."""

    def __init__(self, options: ChatAnswerOptions) -> None:
        self._options = options
        self._start: MessageStart | None = None
        self._end: MessageDelta | None = None
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[_Call] = []
        self._is_in_call = False

    def feed(self, events: Iterable[MessageEvent]) -> list[ChatChunk]:
        return [chunk for event in events for chunk in self._feed(event)]

    @property
    def completion(self) -> ChatCompletion:
        """Return the whole answer. Requires all its events."""
        assert self._end is not None
        text, thought = "".join(self._texts), "".join(self._thoughts) or None
        message = AnswerMessage(
            content=None if self._calls and not text else text,
            reasoning_content=thought,
            reasoning=thought,
            tool_calls=tuple(call.whole for call in self._calls) or None,
        )
        choice = Choice(message=message, finish_reason=FINISH_REASONS[self._end.delta.stop_reason])
        return ChatCompletion(
            id=self._id,
            created=self._options.created,
            model=self._model,
            choices=(choice,),
            usage=usage_of(self._end.usage),
            service_tier=self._options.service_tier,
        )

    def _feed(self, event: MessageEvent) -> list[ChatChunk]:
        match event:
            case MessageStart():
                self._start = event
                return [self._chunk(ChoiceDelta(role="assistant", content=""))]
            case ContentBlockStart(content_block=ToolUseContent(id=use_id, name=name)):
                return self._open_call(use_id, name)
            case ContentBlockDelta(delta=delta):
                return self._add(delta)
            case ContentBlockStop() if self._is_in_call:
                return self._close_call()
            case MessageDelta():
                return self._finish(event)
            case ContentBlockStart() | ContentBlockStop() | MessageStop():
                return []
            case _:
                assert_never(event)

    def _add(self, delta: Delta) -> list[ChatChunk]:
        match delta:
            case TextDelta(text=text):
                self._texts.append(text)
                return [self._chunk(ChoiceDelta(content=text))]
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

    def _open_call(self, use_id: str, name: str) -> list[ChatChunk]:
        self._is_in_call = True
        call = _Call(call_id(use_id), name, name in self._options.custom_tools)
        self._calls.append(call)
        if call.is_custom:
            return []
        return [
            self._call_chunk(
                ToolCallDelta(
                    index=len(self._calls) - 1,
                    id=call.id,
                    type="function",
                    function=FunctionDelta(name=name, arguments=""),
                )
            )
        ]

    def _close_call(self) -> list[ChatChunk]:
        self._is_in_call = False
        call, index = self._calls[-1], len(self._calls) - 1
        if call.is_custom:
            custom = CalledCustomTool(name=call.name, input=call.input)
            return [
                self._call_chunk(
                    ToolCallDelta(index=index, id=call.id, type="custom", custom=custom)
                )
            ]
        return [] if call.pieces else [self._arguments(call.input)]

    def _arguments(self, text: str) -> ChatChunk:
        return self._call_chunk(
            ToolCallDelta(index=len(self._calls) - 1, function=FunctionDelta(arguments=text))
        )

    def _call_chunk(self, delta: ToolCallDelta) -> ChatChunk:
        return self._chunk(ChoiceDelta(tool_calls=(delta,)))

    def _finish(self, event: MessageDelta) -> list[ChatChunk]:
        self._end = event
        reason = FINISH_REASONS[event.delta.stop_reason]
        last = self._chunk(ChoiceDelta(), reason)
        return [last, self._of()] if self._options.includes_usage else [last]

    def _chunk(self, delta: ChoiceDelta, finish_reason: FinishReason | None = None) -> ChatChunk:
        return self._of(ChunkChoice(delta=delta, finish_reason=finish_reason))

    def _of(self, *choices: ChunkChoice) -> ChatChunk:
        chunk = ChatChunk(
            id=self._id,
            created=self._options.created,
            model=self._model,
            choices=choices,
            service_tier=self._options.service_tier,
        )
        if not self._options.includes_usage:
            return chunk
        usage = None if choices or self._end is None else usage_of(self._end.usage)
        return ChatChunkWithUsage(**dict(chunk), usage=usage)

    @property
    def _id(self) -> str:
        assert self._start is not None
        return self._start.message.id.replace("msg_", "chatcmpl-", 1)

    @property
    def _model(self) -> str:
        assert self._start is not None
        return self._start.message.model


def usage_of(usage: DeltaUsage) -> CompletionUsage:
    prompt = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=usage.output_tokens,
        total_tokens=prompt + usage.output_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cache_read_input_tokens),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=usage.output_tokens_details.thinking_tokens
        ),
    )
