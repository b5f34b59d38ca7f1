"""The events of a streamed answer. Their order is reply's business, their bytes are server's.

Grammar: message_start, then blocks (content_block_start, deltas, content_block_stop; one open at a time, indexes
from 0), then message_delta and message_stop; ping anywhere after the start; error may replace any rest.
"""

from typing import Annotated, Literal

from pydantic import Field

from pensieve.api.base import ApiModel, is_none
from pensieve.api.errors import ErrorEnvelope
from pensieve.api.messages.message import (
    AnswerContent,
    ContextEdits,
    DeltaUsage,
    Message,
    StopReason,
)


class MessageStart(ApiModel):
    """The answer begins; its usage already holds the input tokens."""

    type: Literal["message_start"] = "message_start"
    message: Message


class ContentBlockStart(ApiModel):
    """A block opens, empty."""

    type: Literal["content_block_start"] = "content_block_start"
    index: int
    content_block: AnswerContent


class TextDelta(ApiModel):
    """More text."""

    type: Literal["text_delta"] = "text_delta"
    text: str


class ThinkingDelta(ApiModel):
    """More of a thought."""

    type: Literal["thinking_delta"] = "thinking_delta"
    thinking: str


class SignatureDelta(ApiModel):
    """A thought's signature, in one piece, once the thought is whole."""

    type: Literal["signature_delta"] = "signature_delta"
    signature: str


class InputJsonDelta(ApiModel):
    """More of a tool's input: all pieces so far begin a JSON object."""

    type: Literal["input_json_delta"] = "input_json_delta"
    partial_json: str


Delta = Annotated[
    TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta, Field(discriminator="type")
]


class ContentBlockDelta(ApiModel):
    """More of the open block."""

    type: Literal["content_block_delta"] = "content_block_delta"
    index: int
    delta: Delta


class ContentBlockStop(ApiModel):
    """The open block is whole."""

    type: Literal["content_block_stop"] = "content_block_stop"
    index: int


class StopDelta(ApiModel):
    """Why the answer ended."""

    stop_reason: StopReason
    stop_sequence: str | None = None
    stop_details: None = None


class MessageDelta(ApiModel):
    """The answer's last facts; usage is cumulative."""

    type: Literal["message_delta"] = "message_delta"
    delta: StopDelta
    usage: DeltaUsage
    context_management: ContextEdits | None = Field(default=None, exclude_if=is_none)


class MessageStop(ApiModel):
    """Nothing follows."""

    type: Literal["message_stop"] = "message_stop"


class Ping(ApiModel):
    """Still here."""

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
