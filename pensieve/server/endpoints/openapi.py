"""`GET /openapi.json`: the OpenAPI 3.1 document.

It is generated from the operations, the types that validate requests, and the error table; nothing
in it is written a second time.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

import pensieve
from pensieve.api.errors import ErrorEnvelope
from pensieve.api.schemas import Schema, Schemas, query_parameters, schemas, text_fields
from pensieve.errors import (
    AuthenticationError,
    ForbiddenError,
    HeadTooLargeError,
    InvalidRequestError,
    PensieveError,
    RequestTooLargeError,
)
from pensieve.server.errors import error_status_of_class
from pensieve.server.operations import Operation

_ALWAYS = (ForbiddenError, HeadTooLargeError, PensieveError)
_WITH_A_BODY = (InvalidRequestError, RequestTooLargeError)

_VERSION_HEADERS = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }
    for name, description in {
        "anthropic-version": "Version of the API; 2023-06-01 if missing. Unknown: the newest.",
        "anthropic-beta": "Beta features, separated by commas. Unknown ones are ignored.",
    }.items()
]
_STREAM = (
    "With `stream: true`: server-sent events, each an `event:` line with its type and a"
    " `data:` line with its JSON. message_start; then blocks, each content_block_start,"
    " content_block_delta…, content_block_stop; then message_delta and message_stop. ping may"
    " occur anywhere after the start; error may replace all remaining events."
)


class OpenApiEndpoint:
    """Adds its own operation to `others` and serves the document of all."""

    def __init__(self, others: Sequence[Operation]) -> None:
        own = Operation(
            "GET",
            "/openapi.json",
            "openapi",
            "This document.",
            self.document,
            _JSON,
            is_public=True,
        )
        self.operations = (*others, own)

    async def document(self, _request: Request) -> Response:
        """The document is built at the first request."""
        return Response(self._json, media_type=_JSON)

    @cached_property
    def _json(self) -> str:
        return json.dumps(document(self.operations))


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    schema_set = schemas(
        read={operation.body for operation in operations if operation.body is not None},
        written={ErrorEnvelope}
        | {operation.answer for operation in operations if isinstance(operation.answer, type)}
        | {event for operation in operations for event in operation.parts},
    )
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for operation in operations:
        paths[operation.path.replace(":path}", "}")][operation.method.lower()] = _operation(
            operation, schema_set
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pensieve",
            "version": pensieve.__version__,
            "description": "A local model that speaks the Anthropic API.",
        },
        "servers": [{"url": "/"}],
        "security": [{"x-api-key": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schema_set.components,
            "securitySchemes": {
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(operation: Operation, schema_set: Schemas) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [
            *({"name": name, **_PATH_PARAMETER} for name in _path_parameters(operation.path)),
            *(query_parameters(operation.query) if operation.query else ()),
            *(() if operation.is_public else _VERSION_HEADERS),
        ],
        "responses": {
            **{
                str(status): _success(operation, schema_set)
                for status in (200, *operation.extra_statuses)
            },
            **_failures(operation),
        },
    }
    if operation.is_public:
        entry["security"] = []
    if operation.body is not None:
        content = {"application/json": {"schema": schema_set.read[operation.body]}}
        entry["requestBody"] = {"required": True, "content": content}
    if operation.form is not None:
        fields = {"file": _FILE, **text_fields(operation.form)}
        schema = {"type": "object", "required": ["file"], "properties": fields}
        content = {"multipart/form-data": {"schema": schema}}
        entry["requestBody"] = {"required": True, "content": content}
    return entry


_JSON = "application/json"
_TEXT: Schema = {"type": "string"}
_PATH_PARAMETER = {
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
}
_FILE = {"type": "string", "format": "binary", "description": "Text in UTF-8."}
# OpenAPI 3.1 describes a stream by the schema of one event.
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_REQUEST_ID = {
    "request-id": {
        "description": "Names this request in the server's log.",
        "schema": {"type": "string", "pattern": "^req_"},
    }
}


def _path_parameters(path: str) -> list[str]:
    return re.findall(r"{(\w+)", path)


def _success(operation: Operation, schema_set: Schemas) -> dict[str, Any]:
    parts = [schema_set.written[part] for part in operation.parts]
    text: dict[str, Any] = {"schema": _TEXT, **({"x-parts": parts} if parts else {})}
    description = "Success."
    content: dict[str, Any]
    if operation.answer == _JSON:
        content = {_JSON: {"schema": {}}}
    elif isinstance(operation.answer, str):
        content = {operation.answer: text}
    else:
        content = {_JSON: {"schema": schema_set.written[operation.answer]}}
        if parts:
            description = _STREAM
            content["text/event-stream"] = {"schema": _EVENT, "x-parts": parts}
    return {"description": description, "headers": _REQUEST_ID, "content": content}


def _failures(operation: Operation) -> dict[str, Any]:
    """Return a response for each status that an error of this operation has."""
    kinds: list[type[Exception]] = [*_ALWAYS, *operation.errors]
    kinds += () if operation.is_public else (AuthenticationError,)
    kinds += (InvalidRequestError,) if operation.query else ()
    kinds += _WITH_A_BODY if operation.body or operation.form else ()
    by_status: dict[int, set[str]] = defaultdict(set)
    for kind in kinds:
        error_status = error_status_of_class(kind)
        by_status[error_status.status].add(error_status.kind)
    return {
        str(status): {
            "description": ", ".join(sorted(names)),
            "headers": _REQUEST_ID,
            "content": {_JSON: {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}},
        }
        for status, names in sorted(by_status.items())
    }
