"""The events of a streamed answer. pensieve/reply emits them, pensieve/server serializes them.

Order: message_start, then blocks (content_block_start, deltas, content_block_stop; one open at a
time, indexes from 0), then message_delta and message_stop. ping may occur anywhere after the start,
and error may replace the rest.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from pensieve.api.base import ApiModel, is_none
from pensieve.api.errors import ErrorEnvelope
from pensieve.api.messages.logprobs import TextLogprob
from pensieve.api.messages.message import (
    AnswerContent,
    ContextEdits,
    DeltaUsage,
    Message,
    StopReason,
)


class MessageStart(ApiModel):
    """Begins the answer. Its usage already contains the input tokens."""

    type: Literal["message_start"] = "message_start"
    message: Message


class ContentBlockStart(ApiModel):
    """Opens an empty block."""

    type: Literal["content_block_start"] = "content_block_start"
    index: int
    content_block: AnswerContent


class TextDelta(ApiModel):
    """Text to append."""

    type: Literal["text_delta"] = "text_delta"
    text: str


class ScoredTextDelta(TextDelta):
    """Text and its tokens, which the Messages API does not have: it is written without them."""

    logprobs: tuple[TextLogprob, ...]


class ThinkingDelta(ApiModel):
    """Thinking to append."""

    type: Literal["thinking_delta"] = "thinking_delta"
    thinking: str


class SignatureDelta(ApiModel):
    """The signature of a complete thinking block."""

    type: Literal["signature_delta"] = "signature_delta"
    signature: str


class InputJsonDelta(ApiModel):
    """A part of a tool's input: the parts so far are the beginning of a JSON object."""

    type: Literal["input_json_delta"] = "input_json_delta"
    partial_json: str


Delta = Annotated[
    TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta, Field(discriminator="type")
]


class ContentBlockDelta(ApiModel):
    """Extends the open block."""

    type: Literal["content_block_delta"] = "content_block_delta"
    index: int
    delta: Delta


class ContentBlockStop(ApiModel):
    """Closes the open block."""

    type: Literal["content_block_stop"] = "content_block_stop"
    index: int


class StopDelta(ApiModel):
    """Why the answer ended."""

    stop_reason: StopReason
    stop_sequence: str | None = None
    stop_details: None = None


class MessageDelta(ApiModel):
    """Stop reason and cumulative usage of the answer."""

    type: Literal["message_delta"] = "message_delta"
    delta: StopDelta
    usage: DeltaUsage
    context_management: ContextEdits | None = Field(default=None, exclude_if=is_none)


class MessageStop(ApiModel):
    """Ends the stream."""

    type: Literal["message_stop"] = "message_stop"


class Ping(ApiModel):
    """Keeps the connection alive."""

    type: Literal["ping"] = "ping"


MessageEvent = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
)
StreamEvent = MessageEvent | Ping | ErrorEnvelope
_STREAM_EVENT: TypeAdapter[StreamEvent] = TypeAdapter(
    Annotated[StreamEvent, Field(discriminator="type")]
)


def parse_event(data: str) -> StreamEvent | None:
    """Return the event; None for a kind of event, block or delta that is not one of these.

    Raises ValueError.
    """
    try:
        return _STREAM_EVENT.validate_json(data)
    except ValidationError as error:
        if any(each["type"] == "union_tag_invalid" for each in error.errors()):
            return None
        raise
