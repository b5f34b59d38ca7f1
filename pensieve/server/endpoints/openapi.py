"""`GET /openapi.json`: the OpenAPI 3.1 document, made from the table of operations, the values that validate, and the
table of errors; nothing in it is written a second time.
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
from pensieve.server.errors import fault_of_class
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
        "anthropic-version": "Edition of the API; without it, 2023-06-01. Unknown ones are as the newest.",
        "anthropic-beta": "Beta features, parted by commas. Unknown ones are ignored.",
    }.items()
]
_STREAM = (
    "With `stream: true`: server-sent events, each an `event:` line with its type and a `data:` line with its JSON."
    " message_start; then blocks, each content_block_start, content_block_delta…, content_block_stop; then"
    " message_delta and message_stop. ping anywhere after the start; error may replace any rest."
)


class OpenApiEndpoint:
    """Tells the document of `operations`: those that are handed in, and its own."""

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
        """The whole document, made at the first request."""
        return Response(self._json, media_type=_JSON)

    @cached_property
    def _json(self) -> str:
        return json.dumps(document(self.operations))


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document that describes `operations`."""
    made = schemas(
        read={one.body for one in operations if one.body is not None},
        written={ErrorEnvelope}
        | {one.answer for one in operations if isinstance(one.answer, type)}
        | {event for one in operations for event in one.parts},
    )
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for one in operations:
        paths[one.path.replace(":path}", "}")][one.method.lower()] = _operation(one, made)
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
            "schemas": made.components,
            "securitySchemes": {
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(one: Operation, made: Schemas) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "parameters": [
            *({"name": name, **_PATH_PARAMETER} for name in _path_parameters(one.path)),
            *(query_parameters(one.query) if one.query else ()),
            *(() if one.is_public else _VERSION_HEADERS),
        ],
        "responses": {
            **{str(status): _success(one, made) for status in (200, *one.also)},
            **_failures(one),
        },
    }
    if one.is_public:
        told["security"] = []
    if one.body is not None:
        content = {"application/json": {"schema": made.read[one.body]}}
        told["requestBody"] = {"required": True, "content": content}
    if one.form is not None:
        fields = {"file": _FILE, **text_fields(one.form)}
        schema = {"type": "object", "required": ["file"], "properties": fields}
        content = {"multipart/form-data": {"schema": schema}}
        told["requestBody"] = {"required": True, "content": content}
    return told


_JSON = "application/json"
_TEXT: Schema = {"type": "string"}
_PATH_PARAMETER = {
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
}
_FILE = {"type": "string", "format": "binary", "description": "Text in UTF-8."}
# Of a stream, OpenAPI 3.1 has the schema say what each event is.
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


def _success(one: Operation, made: Schemas) -> dict[str, Any]:
    parts = [made.written[part] for part in one.parts]
    text: dict[str, Any] = {"schema": _TEXT, **({"x-parts": parts} if parts else {})}
    description = "Success."
    content: dict[str, Any]
    if one.answer == _JSON:
        content = {_JSON: {"schema": {}}}
    elif isinstance(one.answer, str):
        content = {one.answer: text}
    else:
        content = {_JSON: {"schema": made.written[one.answer]}}
        if parts:
            description = _STREAM
            content["text/event-stream"] = {"schema": _EVENT, "x-parts": parts}
    return {"description": description, "headers": _REQUEST_ID, "content": content}


def _failures(one: Operation) -> dict[str, Any]:
    """A response for each status that an error of this operation has."""
    kinds: list[type[Exception]] = [*_ALWAYS, *one.errors]
    kinds += () if one.is_public else (AuthenticationError,)
    kinds += (InvalidRequestError,) if one.query else ()
    kinds += _WITH_A_BODY if one.body or one.form else ()
    by_status: dict[int, set[str]] = defaultdict(set)
    for kind in kinds:
        fault = fault_of_class(kind)
        by_status[fault.status].add(fault.kind)
    return {
        str(status): {
            "description": ", ".join(sorted(names)),
            "headers": _REQUEST_ID,
            "content": {_JSON: {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}},
        }
        for status, names in sorted(by_status.items())
    }
