"""The outermost middleware: adds a request id to each response, answers errors, logs one line.

It is handed how a path's errors are written. Endpoints record the usage in the request's
`RequestContext`.
"""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pensieve.api.base import new_id
from pensieve.api.messages.message import Usage
from pensieve.server.errors import (
    FINAL_SEND_TIMEOUT_S,
    PASS_THROUGH,
    STOPPING,
    release_frames,
)
from pensieve.server.wire import Wire, error_response

_log = logging.getLogger("pensieve.server")
_KEY = "pensieve.context"

# Path segments of this API, and those that reveal for which other API a client takes this server.
KNOWN_SEGMENTS = frozenset(
    [
        "api",
        "batches",
        "beta",
        "cancel",
        "chat",
        "complete",
        "completions",
        "content",
        "count_tokens",
        "embeddings",
        "favicon.ico",
        "files",
        "generate",
        "health",
        "hello",
        "input_items",
        "input_tokens",
        "messages",
        "models",
        "openapi.json",
        "ps",
        "rerank",
        "responses",
        "results",
        "show",
        "tags",
        "v1",
        "v2",
        "version",
    ]
) | {""}
MAX_SEGMENTS = 8
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_EXPOSED_HEADERS = b"request-id, x-request-id, retry-after, x-should-retry"
_ID = re.compile(r"(?:file|msgbatch|resp)_01[0-9A-Za-z]{22}", re.ASCII)


@dataclass(slots=True)
class RequestContext:
    """State of one request. RequestMiddleware makes and logs it."""

    wire: Wire
    request_id: str = field(default_factory=lambda: new_id("req"))
    began_at: float = field(default_factory=time.monotonic)
    status: int | None = None
    usage: Callable[[], Usage] | None = None  # of the answer so far
    drafts_text: Callable[[], str] = lambda: ""  # what drafts gave the answer, for the log line
    has_client_left: bool = False
    is_poll: bool = False  # a status poll, logged at DEBUG
    origin: bytes | None = None  # another origin whose pages may read the answer


def request_context_of(scope: Scope) -> RequestContext:
    context = scope[_KEY]
    assert isinstance(context, RequestContext)
    return context


class RequestMiddleware:
    def __init__(self, app: ASGIApp, *, wire_of: Callable[[Scope], Wire]) -> None:
        self._app = app
        self._wire_of = wire_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = RequestContext(self._wire_of(scope))
        scope[_KEY] = context
        try:
            await self._answer(scope, receive, _with_headers(send, context), context)
        finally:
            _log_line(scope, context)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, context: RequestContext
    ) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            context.has_client_left = True
        except anyio.get_cancelled_exc_class():
            # Only uvicorn cancels requests, after the grace of a stop.
            with anyio.move_on_after(FINAL_SEND_TIMEOUT_S, shield=True):
                await _send_error(STOPPING, scope, receive, send, context)
        except PASS_THROUGH:
            raise
        except BaseException as error:
            if context.status is not None:
                raise
            await _send_error(error, scope, receive, send, context)
            release_frames(error)


async def _send_error(
    error: BaseException, scope: Scope, receive: Receive, send: Send, context: RequestContext
) -> None:
    if context.status is None:
        await error_response(context.wire, error, context.request_id)(scope, receive, send)


def _with_headers(send: Send, context: RequestContext) -> Send:
    """Add the request's id, and what lets a page of another origin read the response."""
    request_id = context.request_id.encode()
    # By Anthropic's name and by OpenAI's.
    ids = ((b"request-id", request_id), (b"x-request-id", request_id))

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            context.status = message["status"]
            headers = [*message["headers"], *ids, *_cors_headers(context.origin)]
            message = {**message, "headers": headers}
        await send(message)

    return send_with_headers


def redact_path(path: str) -> str:
    """Return `path` with `*` for each segment that could be a misplaced secret.

    Ids stay: they are random and the server's own.
    """
    segments = path.split("/")[:MAX_SEGMENTS]
    return "/".join(
        segment if segment in KNOWN_SEGMENTS or _ID.fullmatch(segment) else "*"
        for segment in segments
    )


def _cors_headers(origin: bytes | None) -> list[tuple[bytes, bytes]]:
    if origin is None:
        return []
    return [
        (b"access-control-allow-origin", origin),
        (
            b"access-control-expose-headers",
            _EXPOSED_HEADERS,
        ),
        (b"vary", b"origin"),
    ]


def _log_line(scope: Scope, context: RequestContext) -> None:
    # Never a body, a key or a query; of a path only known segments.
    path = redact_path(scope["path"])
    elapsed_ms = (time.monotonic() - context.began_at) * 1000
    outcome = f"{context.status or '-'}{' client left' if context.has_client_left else ''}"
    usage = context.usage() if context.usage is not None and context.status == 200 else None
    tokens = (
        ""
        if usage is None
        else f", {usage.input_tokens + usage.cache_creation_input_tokens} new"
        f" + {usage.cache_read_input_tokens} cached tokens in, {usage.output_tokens} out"
        f"{context.drafts_text()}"
    )
    _log.log(
        logging.DEBUG if context.is_poll else logging.INFO,
        "%s %s %s: %s in %.0f ms%s",
        context.request_id,
        scope["method"] if scope["method"] in METHODS else "*",
        path,
        outcome,
        elapsed_ms,
        tokens,
    )
