"""The answer as a value: `Message` and its usage. Fields that the specification requires are always written."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from pensieve.api.base import ApiModel, is_none

StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


class TextContent(ApiModel):
    """A text block of an answer."""

    type: Literal["text"] = "text"
    text: str
    citations: None = None


class ThinkingContent(ApiModel):
    """What the model thought before it answered. The signature is for whoever sends the block back."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str


class ToolUseContent(ApiModel):
    """A call of one of the client's tools, in the order of keys that the model wrote."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, JsonValue]


AnswerContent = Annotated[
    TextContent | ThinkingContent | ToolUseContent, Field(discriminator="type")
]


class AnswerRecord(ApiModel):
    """An answer as it is kept. opening: the end of its prompt, with which the template begins an answer; tokens: as generated."""

    opening: str
    tokens: tuple[int, ...]
    content: tuple[AnswerContent, ...]


class CacheCreation(ApiModel):
    """Tokens written to the prompt cache, by lifetime."""

    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class OutputTokensDetails(ApiModel):
    """What the output tokens were spent on."""

    thinking_tokens: int = 0


class DeltaUsage(ApiModel):
    """Usage at the end of a stream. The whole prompt is input + cache creation + cache read."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    server_tool_use: None = None


class Usage(DeltaUsage):
    """Usage of a whole message."""

    cache_creation: CacheCreation = CacheCreation()
    service_tier: Literal["standard", "batch"] = "standard"


class ClearedToolUses(ApiModel):
    """An edit of the context that was applied: old tool results left out of the prompt."""

    type: Literal["clear_tool_uses_20250919"] = "clear_tool_uses_20250919"
    cleared_tool_uses: int
    cleared_input_tokens: int


class ContextEdits(ApiModel):
    """Answers a request's `context_management`: the edits that were applied."""

    applied_edits: tuple[ClearedToolUses, ...] = ()


class Message(ApiModel):
    """The body of a non-streaming answer, and what a stream begins with."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: tuple[AnswerContent, ...] = ()
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    stop_details: None = None
    container: None = None
    context_management: ContextEdits | None = None
    diagnostics: None = None
    usage: Usage


class OriginalTokens(ApiModel):
    """How long the prompt was before its edits."""

    original_input_tokens: int


class TokenCount(ApiModel):
    """The body of a `count_tokens` answer."""

    input_tokens: int
    context_management: OriginalTokens | None = Field(default=None, exclude_if=is_none)
