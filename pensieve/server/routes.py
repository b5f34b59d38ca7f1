"""All operations of the server. What the OpenAPI document says of them is in descriptions.py."""

from dataclasses import dataclass

from starlette.types import ASGIApp

from pensieve.api.batches import MAX_BODY_BYTES as BATCH_BYTES
from pensieve.api.messages.request import MAX_BODY_BYTES as MESSAGE_BYTES
from pensieve.server.batches.endpoint import BatchesEndpoint
from pensieve.server.endpoints.activity import ActivityEndpoint
from pensieve.server.endpoints.health import HealthEndpoint
from pensieve.server.endpoints.models import ModelsEndpoint
from pensieve.server.endpoints.openapi import OpenApiEndpoint
from pensieve.server.files.endpoint import FilesEndpoint
from pensieve.server.messages.endpoint import MessagesEndpoint
from pensieve.server.metrics.endpoint import MetricsEndpoint
from pensieve.server.openai.chat import ChatEndpoint
from pensieve.server.openai.completions import CompletionsEndpoint
from pensieve.server.openai.responses import ResponsesEndpoint
from pensieve.server.openai.wire import OPENAI, OPENAI_TEXT, RESPONSES
from pensieve.server.page.endpoint import PageEndpoint, greeting
from pensieve.server.routing import Operation
from pensieve.server.wire import ANTHROPIC, Wire

_RESPONSE = "/v1/responses/{response_id}"


@dataclass(frozen=True, slots=True)
class Endpoints:
    messages: MessagesEndpoint
    chat: ChatEndpoint
    completions: CompletionsEndpoint
    responses: ResponsesEndpoint
    batches: BatchesEndpoint
    models: ModelsEndpoint
    files: FilesEndpoint
    health: HealthEndpoint
    activity: ActivityEndpoint
    metrics: MetricsEndpoint
    page: PageEndpoint


def operations(to: Endpoints) -> tuple[Operation, ...]:
    """Return the method, path and endpoint of each operation, and the largest body it reads.

    Operations of one path are adjacent. All but the public ones need the key.
    """
    batches, files, messages, responses = to.batches, to.files, to.messages, to.responses
    openapi = OpenApiEndpoint()
    table = (
        _answered("/v1/messages", messages.create, ANTHROPIC),
        Operation("POST", "/v1/messages/count_tokens", messages.count_tokens, MESSAGE_BYTES),
        Operation("POST", "/v1/messages/batches", batches.create, BATCH_BYTES),
        Operation("GET", "/v1/messages/batches", batches.list),
        Operation("GET", "/v1/messages/batches/{message_batch_id}", batches.retrieve),
        Operation("DELETE", "/v1/messages/batches/{message_batch_id}", batches.delete),
        Operation("POST", "/v1/messages/batches/{message_batch_id}/cancel", batches.cancel),
        Operation("GET", "/v1/messages/batches/{message_batch_id}/results", batches.results),
        _answered("/v1/chat/completions", to.chat.create, OPENAI),
        _answered("/v1/completions", to.completions.create, OPENAI_TEXT),
        _answered("/v1/responses", responses.create, RESPONSES),
        Operation(
            "POST",
            "/v1/responses/input_tokens",
            responses.count_tokens,
            MESSAGE_BYTES,
            wire=RESPONSES,
        ),
        Operation("GET", _RESPONSE, responses.retrieve, wire=RESPONSES),
        Operation("DELETE", _RESPONSE, responses.delete, wire=RESPONSES),
        Operation("GET", f"{_RESPONSE}/input_items", responses.input_items, wire=RESPONSES),
        Operation("POST", f"{_RESPONSE}/cancel", responses.cancel, wire=RESPONSES),
        Operation("GET", "/v1/models", to.models.list, shared_with=OPENAI),
        Operation("GET", "/v1/models/{model_id:path}", to.models.retrieve, shared_with=OPENAI),
        Operation("POST", "/v1/files", files.upload, files.max_body, shared_with=OPENAI),
        Operation("GET", "/v1/files", files.list, shared_with=OPENAI),
        Operation("GET", "/v1/files/{file_id}", files.retrieve, shared_with=OPENAI),
        Operation("DELETE", "/v1/files/{file_id}", files.delete, shared_with=OPENAI),
        Operation("GET", "/v1/files/{file_id}/content", files.content, shared_with=OPENAI),
        Operation("GET", "/health", to.health.health, is_public=True),
        Operation("GET", "/activity", to.activity.now),
        Operation("GET", "/activity/history", to.activity.history),
        Operation("GET", "/metrics", to.metrics.metrics, is_public=True),
        Operation("GET", "/", to.page.root, is_public=True),
        Operation("GET", "/api/hello", greeting, is_public=True),
        Operation("GET", "/openapi.json", openapi.document, is_public=True),
    )
    openapi.describe(table)
    return table


def _answered(path: str, create: ASGIApp, wire: Wire) -> Operation:
    """Return an operation that the model answers."""
    return Operation("POST", path, create, MESSAGE_BYTES, wire=wire, generates=True)
