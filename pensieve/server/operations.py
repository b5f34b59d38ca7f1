"""The type of one operation of the API, and the routes made from a list of operations."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from pensieve.api.base import ApiModel
from pensieve.api.pagination import Query

Method = Literal["GET", "POST", "DELETE"]
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path."""

    method: Method
    path: str  # in starlette's syntax
    name: str
    summary: str
    endpoint: Endpoint | ASGIApp
    answer: type[ApiModel] | str  # the value of a 200 response, or its media type
    query: type[Query] | None = None
    body: type[ApiModel] | None = None  # the value of a JSON body
    form: type[ApiModel] | None = None  # the fields of a multipart form that also has a file
    parts: tuple[type[ApiModel], ...] = ()  # a stream's events, or the lines of a JSONL file
    errors: tuple[type[Exception], ...] = ()  # in addition to those of every request
    extra_statuses: tuple[int, ...] = ()  # further statuses with the same body as 200
    is_public: bool = False


def routes(operations: Sequence[Operation]) -> list[Route]:
    """Return a route for each path, so that 405 lists the allowed methods.

    Operations of one path must be adjacent.
    """
    return [
        _route(path, {operation.method: _app(operation.endpoint) for operation in group})
        for path, group in groupby(operations, key=_path)
    ]


def _path(operation: Operation) -> str:
    return operation.path


def _app(endpoint: Endpoint | ASGIApp) -> ASGIApp:
    if inspect.isroutine(endpoint):
        return request_response(cast("Endpoint", endpoint))
    return cast("ASGIApp", endpoint)


def _route(path: str, apps: Mapping[str, ASGIApp]) -> Route:
    return Route(path, _ByMethod(apps), methods=list(apps))


class _ByMethod:
    """ASGI application that dispatches by method. HEAD is GET without the body."""

    def __init__(self, apps: Mapping[str, ASGIApp]) -> None:
        self._apps = {**apps, "HEAD": apps["GET"]} if "GET" in apps else apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._apps[scope["method"]](scope, receive, send)
