"""Values of responses: the whole one, and its output items.

Fields that the specification requires are always written, also if null; clients test the others for
their presence.
"""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from pensieve.api.base import ApiModel, is_none
from pensieve.api.messages.logprobs import TextLogprob
from pensieve.openai.responses.request import JsonObject

ItemStatus = Literal["in_progress", "completed", "incomplete"]
ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed"]
# The last one is not in OpenAI's list: Codex says by it that the context is full.
ErrorCode = Literal["server_error", "invalid_prompt", "context_length_exceeded"]
OptionalText = Annotated[str | None, Field(exclude_if=is_none)]


class OutputText(ApiModel):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[JsonValue, ...] = ()
    logprobs: tuple[TextLogprob, ...] = ()


class ReasoningText(ApiModel):
    """A thought."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str


class SummaryText(ApiModel):
    """A thought in the place of its summary."""

    type: Literal["summary_text"] = "summary_text"
    text: str


class MessageItem(ApiModel):
    """A message of the assistant."""

    id: str
    type: Literal["message"] = "message"
    status: ItemStatus
    role: Literal["assistant"] = "assistant"
    content: tuple[OutputText, ...] = ()


class ReasoningItem(ApiModel):
    """The thought before a message or a call."""

    id: str
    type: Literal["reasoning"] = "reasoning"
    status: ItemStatus
    summary: tuple[SummaryText, ...] = ()
    content: Annotated[tuple[ReasoningText, ...] | None, Field(exclude_if=is_none)] = None
    encrypted_content: OptionalText = None  # clients send it back


class FunctionCallItem(ApiModel):
    """A call of a function."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: ItemStatus
    call_id: str
    name: str
    namespace: OptionalText = None
    arguments: str = ""  # JSON


class CustomToolCallItem(ApiModel):
    """A call of a tool whose input is text."""

    id: str
    type: Literal["custom_tool_call"] = "custom_tool_call"
    status: ItemStatus
    call_id: str
    name: str
    namespace: OptionalText = None
    input: str = ""


OutputItem = Annotated[
    MessageItem | ReasoningItem | FunctionCallItem | CustomToolCallItem,
    Field(discriminator="type"),
]


class InputTokensDetails(ApiModel):
    """Prompt tokens that needed no processing."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(ApiModel):
    """Output tokens by purpose."""

    reasoning_tokens: int = 0


class ResponseUsage(ApiModel):
    """Token counts of the whole prompt and answer."""

    input_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class ResponseError(ApiModel):
    """Why a response failed."""

    code: ErrorCode
    message: str


class IncompleteDetails(ApiModel):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class Response(ApiModel):
    """The body of an answer that is not streamed. Most fields repeat those of the request."""

    id: str
    object: Literal["response"] = "response"
    created_at: int  # Unix seconds, like the next one
    completed_at: int | None = None
    status: ResponseStatus = "in_progress"
    background: Literal[False] = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    model: str
    output: tuple[OutputItem, ...] = ()
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: JsonObject
    safety_identifier: str | None = None
    service_tier: Literal["default"] = "default"
    store: bool = True
    temperature: float | None = None
    text: JsonObject
    tool_choice: JsonValue = "auto"
    tools: tuple[JsonObject, ...] = ()
    top_logprobs: int = 0
    top_p: float | None = None
    presence_penalty: float = 0
    frequency_penalty: float = 0
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
    metadata: dict[str, str] = {}  # noqa: RUF012 -- pydantic copies it


class InputTokens(ApiModel):
    """The response of `POST /v1/responses/input_tokens`."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class DeletedResponse(ApiModel):
    """The response of `DELETE /v1/responses/{response_id}`."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class ItemList(ApiModel):
    """A page of the items that a response answers."""

    object: Literal["list"] = "list"
    data: tuple[JsonObject, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool
