"""Message batches: what `POST /v1/messages/batches` takes, how a batch is told of, and the lines of its results."""

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
    """One request of a batch. Its `params` are a `MessagesRequest`, looked at when its turn comes."""

    custom_id: CustomId
    params: dict[str, object]


class CreateBatchRequest(RequestModel):
    """The body of `POST /v1/messages/batches`, which is never held whole (batch_reading.py)."""

    requests: Annotated[
        tuple[BatchEntry, ...],
        Field(min_length=1, max_length=MAX_REQUESTS),
    ]


class BatchedRequest(MessagesRequest):
    """The `params` of a batch's request: a call whose answer nobody waits for."""

    speed: JsonValue = None

    @model_validator(mode="after")
    def _refuse_what_needs_somebody_waiting(self) -> Self:
        wrong = {
            "stream: Streaming is not supported in a message batch": self.stream,
            "max_tokens: Input should be greater than or equal to 1": self.max_tokens < 1,
            "thread: Message threads are not supported in a message batch": self.thread is not None,
            "speed: This field is not supported in a message batch": self.speed is not None,
        }
        for words, is_so in wrong.items():
            if is_so:
                raise PydanticCustomError("not_in_a_batch", "{words}", {"words": words})
        return self


ProcessingStatus = Literal["in_progress", "canceling", "ended"]


class RequestCounts(ApiModel):
    """A batch's requests by what became of them. All are `processing` until the whole batch has ended."""

    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class MessageBatch(ApiModel):
    """A batch as it is now. `results_url` is there once it has ended."""

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
    """A page of batches, the newest first."""

    data: tuple[MessageBatch, ...]
    has_more: bool
    first_id: str | None
    last_id: str | None


class DeletedBatch(ApiModel):
    """What is said of a batch that is gone."""

    id: str
    type: Literal["message_batch_deleted"] = "message_batch_deleted"


class Succeeded(ApiModel):
    """The request was answered."""

    type: Literal["succeeded"] = "succeeded"
    message: Message


class Errored(ApiModel):
    """The request could not be answered; the envelope is the one that `POST /v1/messages` would have sent."""

    type: Literal["errored"] = "errored"
    error: ErrorEnvelope


class Canceled(ApiModel):
    """The batch was canceled before the request's turn came."""

    type: Literal["canceled"] = "canceled"


class Expired(ApiModel):
    """The batch's 24 hours were over before the request's turn came."""

    type: Literal["expired"] = "expired"


BatchResult = Succeeded | Errored | Canceled | Expired


class BatchResultLine(ApiModel):
    """One line of a batch's results, in the order in which requests were done."""

    custom_id: str
    result: Annotated[BatchResult, Field(discriminator="type")]
