"""The outermost middleware: adds a request id to each response, answers errors, logs one line.

It is handed how a path's errors are written. Endpoints fill in the record of the request's
`RequestContext`.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pensieve.api.base import new_id
from pensieve.server.activity.record import RequestRecord
from pensieve.server.activity.registry import Activity
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
        "activity",
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
        "history",
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
    request_id: str
    is_poll: bool = False  # a status poll, logged at DEBUG
    origin: bytes | None = None  # another origin whose pages may read the answer


def request_context_of(scope: Scope) -> RequestContext:
    context = scope[_KEY]
    assert isinstance(context, RequestContext)
    return context


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
        target = self._target_of(scope)
        record = self._activity.open(
            new_id("req"),
            target.route,
            target.wire.name,
            user_agent=Headers(scope=scope).get("user-agent", ""),
            generates=target.generates,
        )
        scope[_KEY] = context = RequestContext(target.wire, record, record.id)
        try:
            await self._answer(scope, receive, _with_headers(send, context), context)
        finally:
            self._activity.close(record)
            _log_line(scope, context)

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
    """Add the request's id, and what lets a page of another origin read the response."""
    request_id = context.request_id.encode()
    # By Anthropic's name and by OpenAI's.
    ids = ((b"request-id", request_id), (b"x-request-id", request_id))

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            context.record.status = message["status"]
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
    record = context.record
    outcome = f"{record.status or '-'}{' client left' if record.is_client_gone else ''}"
    _log.log(
        logging.DEBUG if context.is_poll else logging.INFO,
        "%s %s %s: %s in %.0f ms%s",
        context.request_id,
        scope["method"] if scope["method"] in METHODS else "*",
        path,
        outcome,
        record.total_s * 1000,
        _tokens_text(record),
    )


def _tokens_text(record: RequestRecord) -> str:
    if record.status != 200 or (prompt := record.prompt_tokens) is None:
        return ""
    cached = record.cached_tokens or 0
    return (
        f", {prompt - cached} new + {cached} cached tokens in, {record.output_tokens} out"
        f"{_drafts_text(record)}"
    )


def _drafts_text(record: RequestRecord) -> str:
    used = [
        f"{counts.accepted} of {counts.drafted} {source}"
        for source, counts in record.drafts.by_source.items()
        if counts.drafted
    ]
    if not used:
        return ""
    speed = record.drafts.tokens_per_step(record.output_tokens)
    return f" ({speed:.1f} tokens a step, drafts accepted: {', '.join(used)})"
