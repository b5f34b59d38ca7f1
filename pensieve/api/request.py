"""What clients ask: the bodies of `POST /v1/messages` and `/v1/messages/count_tokens`.

A string of content is decoded to one text block, so nobody past this file asks which it was. Fields that are not
listed are ignored, except those whose silence would lose something: they are here to be refused by name.
"""

from typing import Annotated, Literal, TypeVar, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    ValidationError,
)
from pydantic_core import PydanticCustomError, from_json

from pensieve.api.errors import first_error
from pensieve.api.values import Request, Wire
from pensieve.errors import InvalidRequestError, RequestTooLargeError

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_STOP_SEQUENCES = 64
MAX_STOP_LETTERS = 1024
MAX_INT = 2**63 - 1

Role = Literal["user", "assistant", "system"]


class TextBlock(Wire):
    """Text. `cache_control` and citations mean nothing here and are not kept."""

    type: Literal["text"]
    text: str


class ThinkingBlock(Wire):
    """What some model thought earlier, perhaps another server's: read past, never checked."""

    type: Literal["thinking", "redacted_thinking"]


class MediaBlock(Wire):
    """An image or a document: decoded so that it can be refused in words that clients heal on."""

    type: Literal["image", "document"]


def _one_text_block(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


ContentBlock = Annotated[TextBlock | ThinkingBlock | MediaBlock, Field(discriminator="type")]
Content = Annotated[
    tuple[ContentBlock, ...],
    BeforeValidator(_one_text_block, json_schema_input_type=str | tuple[ContentBlock, ...]),
]
SystemContent = Annotated[
    tuple[TextBlock, ...],
    BeforeValidator(_one_text_block, json_schema_input_type=str | tuple[TextBlock, ...]),
]


class Turn(Wire):
    """One entry of `messages`."""

    role: Role
    content: Content


class ToolChoice(Wire):
    """Whether a tool must be used."""

    type: Literal["auto", "any", "tool", "none"]

    @property
    def is_forced(self) -> bool:
        """The answer must be a tool use."""
        return self.type in {"any", "tool"}


def _not_empty(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    if not turns:
        raise PydanticCustomError("no_messages", "at least one message is required")
    return turns


class Conversation(Request):
    """What the prompt is made from; `messages.create` and `count_tokens` share it."""

    model: Annotated[str, Field(min_length=1)]
    messages: Annotated[tuple[Turn, ...], AfterValidator(_not_empty)]
    system: SystemContent = ()
    tools: tuple[JsonValue, ...] = ()
    tool_choice: ToolChoice | None = None
    thread: JsonValue = None


class CountTokensRequest(Conversation):
    """The body of `POST /v1/messages/count_tokens`."""


def _stop_sequence(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError(
            "blank_stop_sequence", "each stop sequence must contain non-whitespace"
        )
    return text


StopSequence = Annotated[str, Field(max_length=MAX_STOP_LETTERS), AfterValidator(_stop_sequence)]


class MessagesRequest(Conversation):
    """The body of `POST /v1/messages`. Temperatures up to 2 are taken, as other servers take them."""

    max_tokens: Annotated[StrictInt, Field(ge=1, le=MAX_INT)]
    stream: StrictBool = False
    stop_sequences: Annotated[tuple[StopSequence, ...], Field(max_length=MAX_STOP_SEQUENCES)] = ()
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1, strict=True)] = 1.0
    top_k: Annotated[StrictInt, Field(ge=0, le=MAX_INT)] = 0


ConversationT = TypeVar("ConversationT", bound=Conversation)


def parse(kind: type[ConversationT], body: bytes) -> ConversationT:
    """The request in `body`.

    Raises `InvalidRequestError` in Anthropic's words (dotted path, pydantic's text) and `RequestTooLargeError`.
    """
    if len(body) > MAX_BODY_BYTES:
        raise RequestTooLargeError("Request exceeds the maximum size")
    try:
        fields = cast("object", from_json(body, allow_inf_nan=False))
    except ValueError as error:
        raise InvalidRequestError(f"The request body is not valid JSON: {error}") from None
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise InvalidRequestError(first_error(error)) from None
