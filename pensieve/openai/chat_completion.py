"""Values of chat completions: the whole one, and the chunks of a stream.

Fields that the specification requires are always written, also if null; clients test the others for
their presence.
"""

from typing import Annotated, Literal

from pydantic import Field

from pensieve.api.base import ApiModel, is_none
from pensieve.api.messages.logprobs import TextLogprob

FinishReason = Literal["stop", "length", "tool_calls"]
# Both names are read: `reasoning_content` by most clients, `reasoning` by OpenRouter's.
OptionalText = Annotated[str | None, Field(exclude_if=is_none)]


class PromptTokensDetails(ApiModel):
    """Prompt tokens that needed no processing."""

    cached_tokens: int = 0


class CompletionTokensDetails(ApiModel):
    """Completion tokens by purpose."""

    reasoning_tokens: int = 0


class CompletionUsage(ApiModel):
    """Token counts of the whole prompt and answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails = PromptTokensDetails()
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


class CalledFunction(ApiModel):
    """A function and its arguments, as JSON."""

    name: str
    arguments: str


class CalledCustomTool(ApiModel):
    """A custom tool and its input."""

    name: str
    input: str


class FunctionToolCall(ApiModel):
    """A call of a function."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class CustomToolCall(ApiModel):
    """A call of a custom tool."""

    id: str
    type: Literal["custom"] = "custom"
    custom: CalledCustomTool


AnyToolCall = Annotated[FunctionToolCall | CustomToolCall, Field(discriminator="type")]


class AnswerMessage(ApiModel):
    """The message of an answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: OptionalText = None
    reasoning: OptionalText = None
    tool_calls: Annotated[tuple[AnyToolCall, ...] | None, Field(exclude_if=is_none)] = None


class ChoiceLogprobs(ApiModel):
    """The tokens of a text."""

    content: tuple[TextLogprob, ...]
    refusal: None = None


class Choice(ApiModel):
    """One answer."""

    index: int = 0
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason


class ChatCompletion(ApiModel):
    """The body of an answer that is not streamed."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int  # Unix seconds
    model: str
    choices: tuple[Choice, ...]
    usage: CompletionUsage
    service_tier: OptionalText = None


# Streams.


class FunctionDelta(ApiModel):
    """A function's name, once, and a piece of its arguments."""

    name: OptionalText = None
    arguments: str


class ToolCallDelta(ApiModel):
    """A part of a tool call. The first one has its id, type and name."""

    index: int
    id: OptionalText = None
    type: OptionalText = None
    function: Annotated[FunctionDelta | None, Field(exclude_if=is_none)] = None
    custom: Annotated[CalledCustomTool | None, Field(exclude_if=is_none)] = None


class ChoiceDelta(ApiModel):
    """What is new in an answer."""

    role: Annotated[Literal["assistant"] | None, Field(exclude_if=is_none)] = None
    content: OptionalText = None
    reasoning_content: OptionalText = None
    reasoning: OptionalText = None
    tool_calls: Annotated[tuple[ToolCallDelta, ...] | None, Field(exclude_if=is_none)] = None


class ChunkChoice(ApiModel):
    """One answer's part of a chunk."""

    index: int = 0
    delta: ChoiceDelta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(ApiModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    service_tier: OptionalText = None


class ChatChunkWithUsage(ChatChunk):
    """One event of a stream with usage. Only the last one, which has no choice, tells it."""

    usage: CompletionUsage | None = None
