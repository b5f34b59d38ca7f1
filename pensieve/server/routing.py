"""From a request's path to the operation that answers it, and errors for paths without one.

A path of a wrong base URL that can only mean one operation is served: some SDKs want /v1 in the
base URL, others add it themselves. Access checks come before, with the path as sent.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, cast

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, compile_path, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from pensieve.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    RequestError,
)
from pensieve.server.http.request_body import limited
from pensieve.server.middleware.request_context import Target, request_context_of
from pensieve.server.openai.wire import OPENAI
from pensieve.server.wire import ANTHROPIC, Wire, error_response

Method = Literal["GET", "POST", "DELETE"]
Endpoint = Callable[[Request], Awaitable[Response]]

_DOUBLED = re.compile(r"/+(?:v1/+)+(?=.)|/{2,}(?=[^/])")
# First segments after /v1.
_OPERATIONS = {"messages", "models", "files"}
# Those of OpenAI's API that are served without /v1, too: its clients want /v1 in the base URL, and
# many users leave it out.
_BARE = {"chat", "completions", "models", "responses"}
# Segments by which a path can only be OpenAI's, if none of Anthropic's comes before them.
_OPENAI_SEGMENTS = {
    *("assistants", "audio", "batches", "chat", "completions", "containers", "conversations"),
    *("embeddings", "evals", "fine_tuning", "images", "moderations", "realtime", "responses"),
    *("threads", "uploads", "vector_stores", "videos"),
}
# By the first of these, a path is one API's.
_API_SEGMENTS = _OPENAI_SEGMENTS | {"messages"}
# The path of a response matches it, but this is no id.
_COMPACT = "/v1/responses/compact"
_OPENAI_PATHS = "/v1/chat/completions, /v1/responses, /v1/completions and /v1/models"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path."""

    method: Method
    path: str  # in starlette's syntax
    endpoint: Endpoint | ASGIApp
    max_body: int = 0  # bytes; a body that the endpoint does not read is not refused
    is_public: bool = False  # needs no key
    wire: Wire = ANTHROPIC
    # The wire of requests without `anthropic-version`, if two APIs have the path.
    shared_with: Wire | None = None
    generates: bool = False  # an answer of the model


def routes_of(operations: Sequence[Operation]) -> list[Route]:
    """Return a route for each path, so that 405 lists the allowed methods.

    Operations of one path must be adjacent.
    """
    groups = ((path, list(group)) for path, group in groupby(operations, key=_path))
    return [
        Route(path, _ByMethod(group), methods=[operation.method for operation in group])
        for path, group in groups
    ]


def targets_of(operations: Sequence[Operation]) -> Callable[[Scope], Target]:
    """Return a function that finds a request's wire and route, also before it is routed."""
    patterns = [(compile_path(operation.path)[0], operation) for operation in operations]

    def target_of(scope: Scope) -> Target:
        path = normalize_path(scope["path"])
        for pattern, operation in patterns:
            if pattern.match(path):
                other = operation.shared_with
                wire = operation.wire if other is None or _names_version(scope) else other
                generates = operation.generates and scope["method"] == operation.method
                return Target(wire, operation.path, generates)
        return Target(wire_by_head(scope))

    return target_of


def wire_by_head(scope: Scope) -> Wire:
    """Return the wire of a request that has no operation, by its path or its headers.

    All of Anthropic's clients name its API's version; those of other servers, such as Ollama's,
    read OpenAI's errors.
    """
    segments = (each for each in scope["path"].split("/") if each in _API_SEGMENTS)
    is_anthropics = _names_version(scope) or next(segments, None) == "messages"
    return ANTHROPIC if is_anthropics else OPENAI


def _names_version(scope: Scope) -> bool:
    return "anthropic-version" in Headers(scope=scope)


def _path(operation: Operation) -> str:
    return operation.path


class _ByMethod:
    """ASGI application that dispatches by method. HEAD is GET without the body."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = {operation.method: operation for operation in operations}
        self._apps = {operation.method: _app(operation.endpoint) for operation in operations}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        max_body = self._operations[method].max_body
        await self._apps[method](scope, limited(scope, receive, max_body), send)


def _app(endpoint: Endpoint | ASGIApp) -> ASGIApp:
    if len(inspect.signature(endpoint).parameters) == 1:
        return request_response(cast("Endpoint", endpoint))
    return cast("ASGIApp", endpoint)


class BaseURLMiddleware:
    """ASGI middleware that corrects paths of wrong base URLs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": normalize_path(scope["path"])}
        await self._app(scope, receive, send)


def normalize_path(path: str) -> str:
    """Return the path as for the right base URL: `//v1/v1/messages/` is `/v1/messages`, and
    `/chat/completions` is `/v1/chat/completions`.

    Inner slashes stay: a model's id can be the path of its folder.
    """
    if match := _DOUBLED.match(path):
        path = ("/v1/" if "v1" in match[0] else "/") + path[match.end() :]
    if _BARE.intersection(path.split("/", 2)[1:2]):
        path = "/v1" + path
    return path.rstrip("/") or "/"


async def routing_error(request: Request, error: Exception) -> Response:
    """Write starlette's error for an unknown path or method in the request's wire."""
    assert isinstance(error, HTTPException)
    context = request_context_of(request.scope)
    our_error = _fault_of(request, error.status_code)
    headers = error.headers if isinstance(our_error, MethodNotAllowedError) else None
    return error_response(context.wire, our_error, context.request_id, headers=headers)


def _fault_of(request: Request, status: int) -> RequestError:
    if request.headers.get("upgrade", "").lower() == "websocket":
        return NotFoundError("There are no websockets here: send the request with POST.")
    if status == 405 and request.scope["path"] != _COMPACT:
        return MethodNotAllowedError(f"Method {request.method} is not allowed here.")
    if request.scope["path"].endswith("/embeddings"):
        return InvalidRequestError("model: A chat model is served here, which has no embeddings")
    return NotFoundError(
        f"The requested resource could not be found.{_address_hint(request.scope)}"
    )


def _address_hint(scope: Mapping[str, Any]) -> str:
    """Return a sentence with the right address for an unknown path; empty if there is no guess."""
    segments = scope["path"].strip("/").split("/")
    base = _base_url(scope)
    if _OPERATIONS & set(segments):
        name = next(segment for segment in segments if segment in _OPERATIONS)
        return f" It is at /v1/{name} here: the base URL for clients is {base}."
    if _OPENAI_SEGMENTS & set(segments):
        return f" Of OpenAI's API this server has {_OPENAI_PATHS}; the base URL is {base}/v1."
    return ""


def _base_url(scope: Mapping[str, Any]) -> str:
    """Built from the socket that was reached, never from a header."""
    host, port = scope.get("server") or ("127.0.0.1", None)
    authority = f"[{host}]" if ":" in host else host
    base = f"{scope.get('scheme', 'http')}://{authority}"
    return base if port is None else f"{base}:{port}"
