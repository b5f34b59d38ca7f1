"""All operations of the server, by path.

`app` builds the routes from them, `endpoints/openapi` the OpenAPI document.
"""

from dataclasses import dataclass

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
from pensieve.api.pagination import CursorQuery
from pensieve.errors import EngineBusyError, InvalidRequestError, NotFoundError
from pensieve.server.batches.endpoint import BatchesEndpoint
from pensieve.server.endpoints.health import HealthEndpoint, greeting
from pensieve.server.endpoints.models import ModelsEndpoint
from pensieve.server.endpoints.openapi import OpenApiEndpoint
from pensieve.server.files.endpoint import FilesEndpoint
from pensieve.server.messages.count_tokens import CountTokensEndpoint
from pensieve.server.messages.endpoint import MessagesEndpoint
from pensieve.server.operations import Operation

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
BATCHES = "/v1/messages/batches"
BATCH = f"{BATCHES}/{{message_batch_id}}"
FILES = "/v1/files"
FILE = f"{FILES}/{{file_id}}"


@dataclass(frozen=True, slots=True)
class Endpoints:
    messages: MessagesEndpoint
    count_tokens: CountTokensEndpoint
    batches: BatchesEndpoint
    models: ModelsEndpoint
    files: FilesEndpoint
    health: HealthEndpoint


def operations(endpoints: Endpoints) -> tuple[Operation, ...]:
    """Return all operations; those of one path are adjacent."""
    others = (
        *_messages(endpoints),
        *_batches(endpoints.batches),
        *_models(endpoints.models),
        *_files(endpoints.files),
        *_public(endpoints.health),
    )
    return OpenApiEndpoint(others).operations


def _messages(endpoints: Endpoints) -> tuple[Operation, ...]:
    return (
        Operation(
            "POST",
            "/v1/messages",
            "messages_create",
            "Answer a conversation.",
            endpoints.messages,
            Message,
            body=MessagesRequest,
            parts=STREAM_EVENTS,
            errors=(NotFoundError, EngineBusyError),
        ),
        Operation(
            "POST",
            "/v1/messages/count_tokens",
            "messages_count_tokens",
            "Count the tokens of a conversation.",
            endpoints.count_tokens.count,
            TokenCount,
            body=CountTokensRequest,
            errors=(NotFoundError,),
        ),
    )


def _batches(batches: BatchesEndpoint) -> tuple[Operation, ...]:
    return (
        Operation(
            "POST",
            BATCHES,
            "batches_create",
            "Create a batch of requests that are answered in the background within 24 hours.",
            batches.create,
            MessageBatch,
            body=CreateBatchRequest,
        ),
        Operation(
            "GET",
            BATCHES,
            "batches_list",
            "List message batches, newest first.",
            batches.list,
            BatchPage,
            query=CursorQuery,
        ),
        *_one_batch(batches),
    )


def _one_batch(batches: BatchesEndpoint) -> tuple[Operation, ...]:
    return (
        Operation(
            "GET",
            BATCH,
            "batches_retrieve",
            "Return the state of a batch.",
            batches.retrieve,
            MessageBatch,
            errors=(NotFoundError,),
        ),
        Operation(
            "DELETE",
            BATCH,
            "batches_delete",
            "Delete a batch that has ended.",
            batches.delete,
            DeletedBatch,
            errors=(InvalidRequestError, NotFoundError),
        ),
        Operation(
            "POST",
            f"{BATCH}/cancel",
            "batches_cancel",
            "Cancel a batch: its unfinished requests get the result `canceled`.",
            batches.cancel,
            MessageBatch,
            errors=(NotFoundError,),
        ),
        Operation(
            "GET",
            f"{BATCH}/results",
            "batches_results",
            "Send the results of a batch as JSON lines (`BatchResultLine`).",
            batches.results,
            "application/x-jsonl",
            parts=(BatchResultLine,),
            errors=(NotFoundError,),
        ),
    )


def _models(models: ModelsEndpoint) -> tuple[Operation, ...]:
    return (
        Operation(
            "GET",
            "/v1/models",
            "models_list",
            "List the served model under each of its names.",
            models.list,
            ModelPage,
            query=ModelsQuery,
        ),
        Operation(
            "GET",
            "/v1/models/{model_id:path}",
            "models_retrieve",
            "Return a model. Its id may contain slashes.",
            models.retrieve,
            ModelInfo,
            errors=(NotFoundError,),
        ),
    )


def _files(files: FilesEndpoint) -> tuple[Operation, ...]:
    return (
        Operation(
            "POST",
            FILES,
            "files_upload",
            "Store a text document that messages can reference by its id.",
            files.upload,
            FileMetadata,
            form=UploadFields,
        ),
        Operation(
            "GET",
            FILES,
            "files_list",
            "List files, newest first.",
            files.list,
            FilePage,
            query=FilesQuery,
        ),
        Operation(
            "GET",
            FILE,
            "files_retrieve_metadata",
            "Return a file's metadata.",
            files.retrieve,
            FileMetadata,
            errors=(NotFoundError,),
        ),
        Operation(
            "DELETE",
            FILE,
            "files_delete",
            "Delete a file.",
            files.delete,
            DeletedFile,
            errors=(NotFoundError,),
        ),
        Operation(
            "GET",
            f"{FILE}/content",
            "files_download",
            "Send a file's bytes.",
            files.content,
            "*/*",
            errors=(NotFoundError,),
        ),
    )


def _public(health: HealthEndpoint) -> tuple[Operation, ...]:
    return (
        Operation(
            "GET",
            "/health",
            "health",
            "Report whether the model can answer now: 503 if not.",
            health.health,
            "application/json",
            extra_statuses=(503,),
            is_public=True,
        ),
        *(
            Operation(
                "GET", path, name, "Return a greeting.", greeting, "text/plain", is_public=True
            )
            for path, name in {"/": "root", "/api/hello": "hello"}.items()
        ),
    )
