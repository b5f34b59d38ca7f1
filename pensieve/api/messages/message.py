"""Values of answers: `Message`, its content and usage, and token counts.

Fields that the specification requires are always written, also if null.
"""

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
    """A thinking block of an answer. Clients send it back with its signature."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str


class ToolUseContent(ApiModel):
    """A call of one of the client's tools, with the keys in the order of generation."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, JsonValue]


AnswerContent = Annotated[
    TextContent | ThinkingContent | ToolUseContent, Field(discriminator="type")
]


class AnswerRecord(ApiModel):
    """A generated answer as it is stored."""

    opening: str  # the end of its prompt: the assistant prefix from the template
    tokens: tuple[int, ...]  # as generated
    content: tuple[AnswerContent, ...]


class CacheCreation(ApiModel):
    """Tokens written to the prompt cache, by lifetime."""

    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class OutputTokensDetails(ApiModel):
    """Output tokens by purpose."""

    thinking_tokens: int = 0


class DeltaUsage(ApiModel):
    """Usage at the end of a stream. Input, cache creation and cache read add up to the prompt."""

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
    """An applied context edit: old tool results omitted from the prompt."""

    type: Literal["clear_tool_uses_20250919"] = "clear_tool_uses_20250919"
    cleared_tool_uses: int
    cleared_input_tokens: int


class ContextEdits(ApiModel):
    """The context edits that were applied."""

    applied_edits: tuple[ClearedToolUses, ...] = ()


class Message(ApiModel):
    """The body of an answer that is not streamed, and the beginning of a stream."""

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
    """The length of the prompt before context edits."""

    original_input_tokens: int


class TokenCount(ApiModel):
    """The response of `count_tokens`."""

    input_tokens: int
    context_management: OriginalTokens | None = Field(default=None, exclude_if=is_none)
