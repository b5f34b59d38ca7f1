"""The events of a streamed response. fold.py emits them, pensieve/server serializes them.

Order: response.created, response.in_progress (repeated while there is nothing else), then items
(output_item.added, its parts and deltas, output_item.done; one open at a time, indexes from 0),
then response.completed, .incomplete or .failed.
"""

from typing import Literal, get_args

from pensieve.api.base import ApiModel
from pensieve.api.messages.logprobs import TextLogprob
from pensieve.openai.responses.response import (
    OutputItem,
    OutputText,
    ReasoningText,
    Response,
    SummaryText,
)


class ResponseEvent(ApiModel):
    """Carries the response so far."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: int
    response: Response


class OutputItemEvent(ApiModel):
    """Opens or closes an item, and carries it."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int
    item: OutputItem


class ContentPartEvent(ApiModel):
    """Opens or closes the content of an item, and carries it."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: Literal[0] = 0
    part: OutputText | ReasoningText


class SummaryPartEvent(ApiModel):
    """Opens or closes the summary of a thought, and carries it."""

    type: Literal["response.reasoning_summary_part.added", "response.reasoning_summary_part.done"]
    sequence_number: int
    item_id: str
    output_index: int
    summary_index: Literal[0] = 0
    part: SummaryText


class OutputTextDelta(ApiModel):
    """Text to append."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    sequence_number: int
    item_id: str
    output_index: int
    content_index: Literal[0] = 0
    delta: str
    logprobs: tuple[TextLogprob, ...] = ()


class OutputTextDone(ApiModel):
    """The whole text."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    sequence_number: int
    item_id: str
    output_index: int
    content_index: Literal[0] = 0
    text: str
    logprobs: tuple[TextLogprob, ...] = ()


class ReasoningTextDelta(ApiModel):
    """Thought to append."""

    type: Literal["response.reasoning_text.delta"] = "response.reasoning_text.delta"
    sequence_number: int
    item_id: str
    output_index: int
    content_index: Literal[0] = 0
    delta: str


class ReasoningTextDone(ApiModel):
    """The whole thought."""

    type: Literal["response.reasoning_text.done"] = "response.reasoning_text.done"
    sequence_number: int
    item_id: str
    output_index: int
    content_index: Literal[0] = 0
    text: str


class SummaryTextDelta(ApiModel):
    """Thought to append, in the place of its summary."""

    type: Literal["response.reasoning_summary_text.delta"] = "response.reasoning_summary_text.delta"
    sequence_number: int
    item_id: str
    output_index: int
    summary_index: Literal[0] = 0
    delta: str


class SummaryTextDone(ApiModel):
    """The whole thought, in the place of its summary."""

    type: Literal["response.reasoning_summary_text.done"] = "response.reasoning_summary_text.done"
    sequence_number: int
    item_id: str
    output_index: int
    summary_index: Literal[0] = 0
    text: str


class FunctionCallDelta(ApiModel):
    """Arguments to append."""

    type: Literal["response.function_call_arguments.delta"] = (
        "response.function_call_arguments.delta"
    )
    sequence_number: int
    item_id: str
    output_index: int
    delta: str


class CustomToolCallDelta(ApiModel):
    """The input of a custom tool."""

    type: Literal["response.custom_tool_call_input.delta"] = "response.custom_tool_call_input.delta"
    sequence_number: int
    item_id: str
    output_index: int
    delta: str


class ArgumentsDone(ApiModel):
    """The whole arguments."""

    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    sequence_number: int
    item_id: str
    output_index: int
    name: str
    arguments: str


class InputDone(ApiModel):
    """The whole input of a custom tool."""

    type: Literal["response.custom_tool_call_input.done"] = "response.custom_tool_call_input.done"
    sequence_number: int
    item_id: str
    output_index: int
    input: str


ResponseStreamEvent = (
    ResponseEvent
    | OutputItemEvent
    | ContentPartEvent
    | SummaryPartEvent
    | OutputTextDelta
    | OutputTextDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | SummaryTextDelta
    | SummaryTextDone
    | FunctionCallDelta
    | ArgumentsDone
    | CustomToolCallDelta
    | InputDone
)
STREAM_EVENTS: tuple[type[ResponseStreamEvent], ...] = get_args(ResponseStreamEvent)
