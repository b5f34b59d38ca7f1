"""Every operation of the server, by path."""

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

STREAM = (
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
    """What answers."""

    messages: MessagesEndpoint
    count_tokens: CountTokensEndpoint
    batches: BatchesEndpoint
    models: ModelsEndpoint
    files: FilesEndpoint
    health: HealthEndpoint


def operations(endpoints: Endpoints) -> tuple[Operation, ...]:
    """The whole table; the operations of one path stand together."""
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
            parts=STREAM,
            errors=(NotFoundError, EngineBusyError),
        ),
        Operation(
            "POST",
            "/v1/messages/count_tokens",
            "messages_count_tokens",
            "Tell how many tokens a conversation is.",
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
            "Take many requests, to be answered in the background within 24 hours.",
            batches.create,
            MessageBatch,
            body=CreateBatchRequest,
        ),
        Operation(
            "GET",
            BATCHES,
            "batches_list",
            "List message batches, the newest first.",
            batches.page,
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
            "Tell how a batch is.",
            batches.one,
            MessageBatch,
            errors=(NotFoundError,),
        ),
        Operation(
            "DELETE",
            BATCH,
            "batches_delete",
            "Forget a batch that has ended.",
            batches.delete,
            DeletedBatch,
            errors=(InvalidRequestError, NotFoundError),
        ),
        Operation(
            "POST",
            f"{BATCH}/cancel",
            "batches_cancel",
            "Answer no more of a batch.",
            batches.cancel,
            MessageBatch,
            errors=(NotFoundError,),
        ),
        Operation(
            "GET",
            f"{BATCH}/results",
            "batches_results",
            "Send what became of each request, a line of JSON (`BatchResultLine`) each.",
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
            "List the served model, under each of its names.",
            models.page,
            ModelPage,
            query=ModelsQuery,
        ),
        Operation(
            "GET",
            "/v1/models/{model_id:path}",
            "models_retrieve",
            "Tell of a model. Its id may hold slashes.",
            models.one,
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
            "Keep a text document, to be named in messages by its id.",
            files.upload,
            FileMetadata,
            form=UploadFields,
        ),
        Operation(
            "GET",
            FILES,
            "files_list",
            "List files, the newest first.",
            files.page,
            FilePage,
            query=FilesQuery,
        ),
        Operation(
            "GET",
            FILE,
            "files_retrieve_metadata",
            "Tell of a file.",
            files.one,
            FileMetadata,
            errors=(NotFoundError,),
        ),
        Operation(
            "DELETE",
            FILE,
            "files_delete",
            "Forget a file.",
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
            "Tell whether the model answers now: 503 where it does not.",
            health.health,
            "application/json",
            also=(503,),
            is_public=True,
        ),
        *(
            Operation("GET", path, name, "Say hello.", greeting, "text/plain", is_public=True)
            for path, name in {"/": "root", "/api/hello": "hello"}.items()
        ),
    )
