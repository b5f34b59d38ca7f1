"""What the server can be asked: a table of operations, from which both its routes and its OpenAPI document are made."""

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
    """One method on one path.

    path: as Starlette writes it. answer: what a success says, a wire value or a media type. body: JSON of this value.
    form: the body is a form with a file and these fields. parts: what its text is made of, a stream's events or a file's
    lines. errors: what may be raised beside what may happen to every request. also: statuses that say the same as 200.
    """

    method: Method
    path: str
    name: str
    summary: str
    endpoint: Endpoint | ASGIApp
    answer: type[ApiModel] | str
    query: type[Query] | None = None
    body: type[ApiModel] | None = None
    form: type[ApiModel] | None = None
    parts: tuple[type[ApiModel], ...] = ()
    errors: tuple[type[Exception], ...] = ()
    also: tuple[int, ...] = ()
    is_public: bool = False


def routes(operations: Sequence[Operation]) -> list[Route]:
    """A route for each path, so that a wrong method is told which are right. A path's operations stand together."""
    return [
        _route(path, {one.method: _app(one.endpoint) for one in group})
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
    """ASGI application: the one of several that its method names. HEAD is GET without the body."""

    def __init__(self, apps: Mapping[str, ASGIApp]) -> None:
        self._apps = {**apps, "HEAD": apps["GET"]} if "GET" in apps else apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._apps[scope["method"]](scope, receive, send)
