"""Values of the message batch endpoints: creation, status and results of a batch."""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from pensieve.api.base import ApiModel, RequestModel, Timestamp
from pensieve.api.errors import ErrorEnvelope
from pensieve.api.messages.message import Message
from pensieve.api.messages.request import MessagesRequest

MAX_BODY_BYTES = 256 * 1024 * 1024
MAX_REQUESTS = 100_000

CustomId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class BatchEntry(RequestModel):
    """One request of a batch. Its `params` are validated when the request is processed."""

    custom_id: CustomId
    params: dict[str, object]


class CreateBatchRequest(RequestModel):
    """The body of `POST /v1/messages/batches`."""

    # For the schema and for errors: batch_reading.py never parses a whole body.

    requests: Annotated[
        tuple[BatchEntry, ...],
        Field(min_length=1, max_length=MAX_REQUESTS),
    ]


class BatchedRequest(MessagesRequest):
    """The `params` of a request in a batch."""

    speed: JsonValue = None

    @model_validator(mode="after")
    def _refuse_unsupported(self) -> Self:
        refusals = {
            "stream: Streaming is not supported in a message batch": self.stream,
            "max_tokens: Input should be greater than or equal to 1": self.max_tokens < 1,
            "thread: Message threads are not supported in a message batch": self.thread is not None,
            "speed: This field is not supported in a message batch": self.speed is not None,
        }
        for message, is_refused in refusals.items():
            if is_refused:
                raise PydanticCustomError("not_in_a_batch", "{message}", {"message": message})
        return self


ProcessingStatus = Literal["in_progress", "canceling", "ended"]


class RequestCounts(ApiModel):
    """A batch's requests by outcome. All are `processing` until the whole batch has ended."""

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class MessageBatch(ApiModel):
    """The state of a batch. `results_url` is set once it has ended."""

    id: str
    type: Literal["message_batch"] = "message_batch"
    processing_status: ProcessingStatus
    request_counts: RequestCounts
    created_at: Timestamp
    expires_at: Timestamp
    ended_at: Timestamp | None = None
    archived_at: None = None
    cancel_initiated_at: Timestamp | None = None
    results_url: str | None = None


class BatchPage(ApiModel):
    """A page of batches, newest first."""

    data: tuple[MessageBatch, ...]
    has_more: bool
    first_id: str | None
    last_id: str | None


class DeletedBatch(ApiModel):
    """The response to the deletion of a batch."""

    id: str
    type: Literal["message_batch_deleted"] = "message_batch_deleted"


class Succeeded(ApiModel):
    """The request was answered."""

    type: Literal["succeeded"] = "succeeded"
    message: Message


class Errored(ApiModel):
    """The request failed, with the error that `POST /v1/messages` would have returned."""

    type: Literal["errored"] = "errored"
    error: ErrorEnvelope


class Canceled(ApiModel):
    """The batch was canceled before the request was processed."""

    type: Literal["canceled"] = "canceled"


class Expired(ApiModel):
    """The batch's 24 hours ended before the request was processed."""

    type: Literal["expired"] = "expired"


BatchResult = Succeeded | Errored | Canceled | Expired


class BatchResultLine(ApiModel):
    """One line of a batch's results, in the order of completion."""

    custom_id: str
    result: Annotated[BatchResult, Field(discriminator="type")]
