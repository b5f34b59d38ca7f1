"""What the OpenAPI document says of each operation in routes.py, by method and path."""

from collections.abc import Mapping
from dataclasses import dataclass

from pensieve.api.base import ApiModel
from pensieve.api.batches import (
    BatchPage,
    BatchResultLine,
    CreateBatchRequest,
    DeletedBatch,
    MessageBatch,
)
from pensieve.api.errors import ErrorEnvelope
from pensieve.api.files import DeletedFile, FileMetadata, FilePage, FilesQuery, UploadFields
from pensieve.api.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
)
from pensieve.api.messages.message import Message, TokenCount
from pensieve.api.messages.request import CountTokensRequest, MessagesRequest
from pensieve.api.models import ModelInfo, ModelPage, ModelsQuery
from pensieve.api.pagination import CursorQuery, Query
from pensieve.errors import EngineBusyError, InvalidRequestError, NotFoundError
from pensieve.openai.chat_completion import ChatChunk, ChatChunkWithUsage, ChatCompletion
from pensieve.openai.chat_request import ChatRequest
from pensieve.openai.errors import OpenAIError
from pensieve.openai.models import Model, ModelList
from pensieve.openai.responses.events import STREAM_EVENTS as RESPONSE_EVENTS
from pensieve.openai.responses.request import (
    InputItemsQuery,
    InputTokensRequest,
    ResponsesRequest,
    RetrieveQuery,
)
from pensieve.openai.responses.response import DeletedResponse, InputTokens, ItemList, Response
from pensieve.openai.text_completion import TextCompletion, TextCompletionRequest

STREAM_EVENTS = (
    MessageStart,
    ContentBlockStart,
    ContentBlockDelta,
    ContentBlockStop,
    MessageDelta,
    MessageStop,
    Ping,
    ErrorEnvelope,
)
_MESSAGE_STREAM = (
    "With `stream: true`: server-sent events, each an `event:` line with its type and a"
    " `data:` line with its JSON. message_start; then blocks, each content_block_start,"
    " content_block_delta…, content_block_stop; then message_delta and message_stop. ping may"
    " occur anywhere after the start; error may replace all remaining events."
)
_CHAT_STREAM = (
    "With `stream: true`: server-sent events, each a `data:` line with its JSON: chunks, the last"
    " one with a `finish_reason`; with `include_usage`, one more without choices; then"
    " `data: [DONE]`. Comments keep the connection alive. An error may replace what remains."
)

_RESPONSE_STREAM = (
    "With `stream: true`: server-sent events, each an `event:` line with its type and a"
    " `data:` line with its JSON, numbered by `sequence_number`. response.created, then"
    " response.in_progress, which is repeated while there is nothing else; then items, each"
    " response.output_item.added, its parts and deltas, response.output_item.done; then"
    " response.completed, response.incomplete or response.failed with the whole response."
)


@dataclass(frozen=True, slots=True)
class Description:
    name: str
    summary: str
    answer: type[ApiModel] | str  # the value of a 200 response, or its media types
    # The value for clients of the other API that has the path.
    other_answer: type[ApiModel] | None = None
    query: type[Query] | None = None
    body: type[ApiModel] | None = None  # the value of a JSON body
    form: type[ApiModel] | None = None  # the fields of a multipart form that also has a file
    parts: tuple[type[ApiModel], ...] = ()  # a stream's events, or the lines of a JSONL file
    stream: str = "Success."  # what the events are
    errors: tuple[type[Exception], ...] = ()  # in addition to those of every request
    extra_statuses: tuple[int, ...] = ()  # further statuses with the same body as 200


DESCRIPTIONS: Mapping[tuple[str, str], Description] = {
    ("POST", "/v1/messages"): Description(
        "messages_create",
        "Answer a conversation.",
        Message,
        body=MessagesRequest,
        parts=STREAM_EVENTS,
        stream=_MESSAGE_STREAM,
        errors=(NotFoundError, EngineBusyError),
    ),
    ("POST", "/v1/messages/count_tokens"): Description(
        "messages_count_tokens",
        "Count the tokens of a conversation.",
        TokenCount,
        body=CountTokensRequest,
        errors=(NotFoundError,),
    ),
    ("POST", "/v1/messages/batches"): Description(
        "batches_create",
        "Create a batch of requests that are answered in the background within 24 hours.",
        MessageBatch,
        body=CreateBatchRequest,
    ),
    ("GET", "/v1/messages/batches"): Description(
        "batches_list", "List message batches, newest first.", BatchPage, query=CursorQuery
    ),
    ("GET", "/v1/messages/batches/{message_batch_id}"): Description(
        "batches_retrieve",
        "Return the state of a batch.",
        MessageBatch,
        errors=(NotFoundError,),
    ),
    ("DELETE", "/v1/messages/batches/{message_batch_id}"): Description(
        "batches_delete",
        "Delete a batch that has ended.",
        DeletedBatch,
        errors=(InvalidRequestError, NotFoundError),
    ),
    ("POST", "/v1/messages/batches/{message_batch_id}/cancel"): Description(
        "batches_cancel",
        "Cancel a batch: its unfinished requests get the result `canceled`.",
        MessageBatch,
        errors=(NotFoundError,),
    ),
    ("GET", "/v1/messages/batches/{message_batch_id}/results"): Description(
        "batches_results",
        "Send the results of a batch as JSON lines (`BatchResultLine`).",
        "application/x-jsonl",
        parts=(BatchResultLine,),
        errors=(NotFoundError,),
    ),
    ("POST", "/v1/chat/completions"): Description(
        "chat_completions_create",
        "Answer a conversation, as OpenAI's API does.",
        ChatCompletion,
        body=ChatRequest,
        parts=(ChatChunk, ChatChunkWithUsage, OpenAIError),
        stream=_CHAT_STREAM,
        errors=(EngineBusyError,),
    ),
    ("POST", "/v1/completions"): Description(
        "completions_create",
        "Continue a text, or fill a gap in it, without a chat template.",
        TextCompletion,
        body=TextCompletionRequest,
        parts=(TextCompletion, OpenAIError),
        stream=_CHAT_STREAM,
        errors=(EngineBusyError,),
    ),
    ("POST", "/v1/responses"): Description(
        "responses_create",
        "Answer input items, as OpenAI's API does.",
        Response,
        body=ResponsesRequest,
        parts=RESPONSE_EVENTS,
        stream=_RESPONSE_STREAM,
        errors=(NotFoundError, EngineBusyError),
    ),
    ("POST", "/v1/responses/input_tokens"): Description(
        "responses_input_tokens",
        "Count the tokens of input items.",
        InputTokens,
        body=InputTokensRequest,
        errors=(NotFoundError,),
    ),
    ("GET", "/v1/responses/{response_id}"): Description(
        "responses_retrieve",
        "Return a stored response.",
        Response,
        query=RetrieveQuery,
        errors=(NotFoundError,),
    ),
    ("DELETE", "/v1/responses/{response_id}"): Description(
        "responses_delete",
        "Delete a stored response.",
        DeletedResponse,
        errors=(NotFoundError,),
    ),
    ("GET", "/v1/responses/{response_id}/input_items"): Description(
        "responses_input_items",
        "List the items that a stored response answers, newest first.",
        ItemList,
        query=InputItemsQuery,
        errors=(NotFoundError,),
    ),
    ("POST", "/v1/responses/{response_id}/cancel"): Description(
        "responses_cancel",
        "Refused: no response is generated in the background.",
        Response,
        errors=(InvalidRequestError, NotFoundError),
    ),
    ("GET", "/v1/models"): Description(
        "models_list",
        "List the served model under each of its names.",
        ModelPage,
        other_answer=ModelList,
        query=ModelsQuery,
    ),
    ("GET", "/v1/models/{model_id:path}"): Description(
        "models_retrieve",
        "Return a model. Its id may contain slashes.",
        ModelInfo,
        other_answer=Model,
        errors=(NotFoundError,),
    ),
    ("POST", "/v1/files"): Description(
        "files_upload",
        "Store a text document that messages can reference by its id.",
        FileMetadata,
        form=UploadFields,
    ),
    ("GET", "/v1/files"): Description(
        "files_list", "List files, newest first.", FilePage, query=FilesQuery
    ),
    ("GET", "/v1/files/{file_id}"): Description(
        "files_retrieve_metadata",
        "Return a file's metadata.",
        FileMetadata,
        errors=(NotFoundError,),
    ),
    ("DELETE", "/v1/files/{file_id}"): Description(
        "files_delete", "Delete a file.", DeletedFile, errors=(NotFoundError,)
    ),
    ("GET", "/v1/files/{file_id}/content"): Description(
        "files_download", "Send a file's bytes.", "*/*", errors=(NotFoundError,)
    ),
    ("GET", "/health"): Description(
        "health",
        "Report whether the model can answer now: 503 if not.",
        "application/json",
        extra_statuses=(503,),
    ),
    ("GET", "/activity"): Description(
        "activity",
        "Report the health, and how far each open request is.",
        "application/json",
    ),
    ("GET", "/activity/history"): Description(
        "activity_history",
        "Report the last hour's speed, the last requests, findings and the log's end.",
        "application/json",
    ),
    ("GET", "/metrics"): Description(
        "metrics", "Counts and times in Prometheus' text format.", "text/plain"
    ),
    ("GET", "/"): Description(
        "root", "Return a greeting, or to a browser a page of figures.", "text/plain, text/html"
    ),
    ("GET", "/api/hello"): Description("hello", "Return a greeting.", "text/plain"),
    ("GET", "/openapi.json"): Description("openapi", "This document.", "application/json"),
}
