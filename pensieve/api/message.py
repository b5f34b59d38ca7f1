"""The answer as a value: `Message` and its usage. Fields that the specification requires are always written."""

from typing import Literal

from pensieve.api.values import Wire

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "model_context_window_exceeded"]


class TextContent(Wire):
    """A text block of an answer."""

    type: Literal["text"] = "text"
    text: str
    citations: None = None


class CacheCreation(Wire):
    """Tokens written to the prompt cache, by lifetime."""

    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class OutputTokensDetails(Wire):
    """What the output tokens were spent on."""

    thinking_tokens: int = 0


class DeltaUsage(Wire):
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
    service_tier: Literal["standard"] = "standard"


class Message(Wire):
    """The body of a non-streaming answer, and what a stream begins with."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: tuple[TextContent, ...] = ()
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    stop_details: None = None
    container: None = None
    context_management: None = None
    usage: Usage


class TokenCount(Wire):
    """The body of a `count_tokens` answer."""

    input_tokens: int
