"""`GET /openapi.json`: the OpenAPI 3.1 document.

It is generated from the operations and their descriptions, the types that validate requests, and
the error table; nothing in it is written a second time.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import product
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

import pensieve
from pensieve.api.base import ApiModel
from pensieve.api.schemas import Schema, Schemas, query_parameters, schemas, text_fields
from pensieve.errors import (
    AuthenticationError,
    ForbiddenError,
    HeadTooLargeError,
    InvalidRequestError,
    PensieveError,
    RequestTooLargeError,
)
from pensieve.server.endpoints.descriptions import DESCRIPTIONS, Description
from pensieve.server.routing import Operation
from pensieve.server.wire import ANTHROPIC, Wire

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


class OpenApiEndpoint:
    """Serves the document of the operations that it was last given, its own among them."""

    def __init__(self) -> None:
        self._operations: Sequence[Operation] = ()

    def describe(self, operations: Sequence[Operation]) -> None:
        self._operations = operations

    async def document(self, _request: Request) -> Response:
        """The document is built at the first request."""
        return Response(self._json, media_type=_JSON)

    @cached_property
    def _json(self) -> str:
        return json.dumps(document(self._operations))


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    found = [(one, DESCRIPTIONS[one.method, one.path]) for one in operations]
    descriptions = [description for _, description in found]
    schema_set = schemas(
        read={one.body for one in descriptions if one.body is not None},
        written={wire.error_type for one in operations for wire in _wires(one)}
        | {one.answer for one in descriptions if isinstance(one.answer, type)}
        | {one.other_answer for one in descriptions if one.other_answer is not None}
        | {event for one in descriptions for event in one.parts},
    )
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for operation, description in found:
        paths[operation.path.replace(":path}", "}")][operation.method.lower()] = _operation(
            operation, description, schema_set
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pensieve",
            "version": pensieve.__version__,
            "description": "A local model that speaks the APIs of Anthropic and OpenAI.",
        },
        "servers": [{"url": "/"}],
        # The last one is none: `require_key` lets programs on this machine in without a key.
        "security": [{"x-api-key": []}, {"api-key": []}, {"bearer": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schema_set.components,
            "securitySchemes": {
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(
    operation: Operation, description: Description, schema_set: Schemas
) -> dict[str, Any]:
    has_versions = operation.wire is ANTHROPIC and not operation.is_public
    entry: dict[str, Any] = {
        "operationId": description.name,
        "summary": description.summary,
        "parameters": [
            *({"name": name, **_PATH_PARAMETER} for name in _path_parameters(operation.path)),
            *(query_parameters(description.query) if description.query else ()),
            *(_VERSION_HEADERS if has_versions else ()),
        ],
        "responses": {
            **{
                str(status): _success(description, schema_set)
                for status in (200, *description.extra_statuses)
            },
            **_failures(description, operation, schema_set),
        },
    }
    if operation.is_public:
        entry["security"] = []
    if description.body is not None:
        content = {"application/json": {"schema": schema_set.read[description.body]}}
        entry["requestBody"] = {"required": True, "content": content}
    if description.form is not None:
        fields = {"file": _FILE, **text_fields(description.form)}
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
    "required": ["data"],
    "properties": {
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
# By Anthropic's name and by OpenAI's.
_REQUEST_ID = {
    name: {
        "description": "Names this request in the server's log.",
        "schema": {"type": "string", "pattern": "^req_"},
    }
    for name in ("request-id", "x-request-id")
}


def _path_parameters(path: str) -> list[str]:
    return re.findall(r"{(\w+)", path)


def _success(description: Description, schema_set: Schemas) -> dict[str, Any]:
    parts = [schema_set.written[part] for part in description.parts]
    text: dict[str, Any] = {"schema": _TEXT, **({"x-parts": parts} if parts else {})}
    summary = "Success."
    content: dict[str, Any]
    if description.answer == _JSON:
        content = {_JSON: {"schema": {}}}
    elif isinstance(description.answer, str):
        content = dict.fromkeys(description.answer.split(", "), text)
    else:
        kinds = filter(None, (description.answer, description.other_answer))
        content = {_JSON: {"schema": _any_of(kinds, schema_set)}}
        if parts:
            summary = description.stream
            content["text/event-stream"] = {"schema": _EVENT, "x-parts": parts}
    return {"description": summary, "headers": _REQUEST_ID, "content": content}


def _wires(operation: Operation) -> tuple[Wire, ...]:
    return tuple(filter(None, (operation.wire, operation.shared_with)))


def _any_of(kinds: Iterable[type[ApiModel]], schema_set: Schemas) -> Schema:
    found = [schema_set.written[kind] for kind in kinds]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _failures(
    description: Description, operation: Operation, schema_set: Schemas
) -> dict[str, Any]:
    """Return a response for each status that an error of this operation has."""
    kinds: list[type[Exception]] = [*_ALWAYS, *description.errors]
    kinds += () if operation.is_public else (AuthenticationError,)
    kinds += (InvalidRequestError,) if description.query else ()
    kinds += _WITH_A_BODY if description.body or description.form else ()
    by_status: dict[int, set[str]] = defaultdict(set)
    for kind, wire in product(kinds, _wires(operation)):
        error = wire.error_status(kind)
        by_status[error.status].add(error.kind)
    schema = _any_of((wire.error_type for wire in _wires(operation)), schema_set)
    return {
        str(status): {
            "description": ", ".join(sorted(names)),
            "headers": _REQUEST_ID,
            "content": {_JSON: {"schema": schema}},
        }
        for status, names in sorted(by_status.items())
    }
