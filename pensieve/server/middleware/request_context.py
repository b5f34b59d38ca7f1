"""The outermost middleware: adds a request id to each response, answers errors, logs one line.

It is handed how a path's errors are written. Endpoints fill in the record of the request's
`RequestContext`.
"""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pensieve.api.base import new_id
from pensieve.logs import REQUEST_ID
from pensieve.server.activity.record import RequestRecord
from pensieve.server.activity.registry import Activity
from pensieve.server.errors import (
    FINAL_SEND_TIMEOUT_S,
    PASS_THROUGH,
    STOPPING,
    release_frames,
)
from pensieve.server.middleware.request_line import RequestLine
from pensieve.server.wire import Wire, error_response

_log = logging.getLogger("pensieve.server")
_KEY = "pensieve.context"

_EXPOSED_HEADERS = b"request-id, x-request-id, retry-after, x-should-retry"
_CLIENT_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """What a request's path names, known before it is routed."""

    wire: Wire
    route: str = "other"  # an operation's path
    generates: bool = False  # an answer of the model


@dataclass(slots=True)
class RequestContext:
    """State of one request. RequestMiddleware makes and logs it."""

    wire: Wire
    record: RequestRecord
    request_id: str  # the server's
    is_poll: bool = False  # a status poll, logged at DEBUG
    origin: bytes | None = None  # another origin whose pages may read the answer
    limit_headers: Sequence[tuple[bytes, bytes]] = ()  # what is left of the limits of a named key


def request_context_of(scope: Scope) -> RequestContext:
    context = scope[_KEY]
    assert isinstance(context, RequestContext)
    return context


def key_name_of(request: Request) -> str:
    """Return the name of the key that owns what the request stores; empty for the server's own."""
    return request_context_of(request.scope).record.key_name


class RequestMiddleware:
    def __init__(
        self, app: ASGIApp, *, target_of: Callable[[Scope], Target], activity: Activity
    ) -> None:
        self._app = app
        self._target_of = target_of
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        target, headers = self._target_of(scope), Headers(scope=scope)
        record = self._activity.open(
            new_id("req"),
            target.route,
            target.wire.name,
            user_agent=headers.get("user-agent", ""),
            generates=target.generates,
        )
        if _CLIENT_ID.fullmatch(named := headers.get("x-request-id", "")):
            record.client_id = named
        scope[_KEY] = context = RequestContext(target.wire, record, record.id)
        token = REQUEST_ID.set(record.id)
        try:
            await self._answer(scope, receive, _with_headers(send, context), context)
        finally:
            self._activity.close(record)
            line = RequestLine(scope["method"], scope["path"], record)
            _log.log(logging.DEBUG if context.is_poll else logging.INFO, line)
            REQUEST_ID.reset(token)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, context: RequestContext
    ) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            context.record.is_client_gone = True
        except anyio.get_cancelled_exc_class():
            # Only uvicorn cancels requests, after the grace of a stop.
            with anyio.move_on_after(FINAL_SEND_TIMEOUT_S, shield=True):
                await _send_error(STOPPING, scope, receive, send, context)
        except PASS_THROUGH:
            raise
        except BaseException as error:
            if context.record.status is not None:
                raise
            await _send_error(error, scope, receive, send, context)
            release_frames(error)


async def _send_error(
    error: BaseException, scope: Scope, receive: Receive, send: Send, context: RequestContext
) -> None:
    if context.record.status is None:
        await error_response(context.wire, error, context.request_id)(scope, receive, send)


def _with_headers(send: Send, context: RequestContext) -> Send:
    """Add the request's id, and what keeps pages of other origins away or lets them in."""
    request_id, client_id = context.request_id, context.record.client_id
    common = (
        # Anthropic's name of it, and OpenAI's, which echoes the client's own.
        (b"request-id", request_id.encode()),
        (b"x-request-id", (client_id or request_id).encode()),
        # Pages of other sites can neither load a response as their own nor take it for a script.
        (b"x-content-type-options", b"nosniff"),
        (b"cross-origin-resource-policy", b"same-origin"),
    )

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            context.record.status = message["status"]
            headers = [*message["headers"], *common, *context.limit_headers]
            if context.origin is not None:
                headers += _cors_headers(context.origin)
            message = {**message, "headers": headers}
        await send(message)

    return send_with_headers


def _cors_headers(origin: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED_HEADERS),
        (b"vary", b"origin"),
    ]
