"""The outermost layer: gives every response its `request-id`, turns what was raised into it, logs one line.

It knows no route. Whoever answers may note what the answer cost in the request's `RequestContext`.
"""

import logging
import re
import time
from dataclasses import dataclass, field

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pensieve.api.base import new_id
from pensieve.api.messages.message import Usage
from pensieve.server.errors import PASSING, STOPPING, error_response, let_go

_log = logging.getLogger("pensieve.server")
_KEY = "pensieve.context"
LAST_WORD_S = 1.0

# Parts of paths that are ours, and those that tell which other API a client takes this for.
WORDS = frozenset(
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
MAX_PARTS = 8
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ID = re.compile(r"(?:file|msgbatch)_01[0-9A-Za-z]{22}", re.ASCII)


@dataclass(slots=True)
class RequestContext:
    """One request and what came of it. The boundary makes and logs it; the endpoint notes the usage.

    is_poll: it is asked again and again, and the log has better things to tell. origin: whose web pages may read the answer,
    beside our own.
    """

    request_id: str = field(default_factory=lambda: new_id("req"))
    began_at: float = field(default_factory=time.monotonic)
    status: int | None = None
    usage: Usage | None = None
    has_client_left: bool = False
    is_poll: bool = False
    origin: bytes | None = None


def exchange_of(scope: Scope) -> RequestContext:
    """The exchange that the boundary opened for this request."""
    exchange = scope[_KEY]
    assert isinstance(exchange, RequestContext)
    return exchange


class RequestMiddleware:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens inside."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = RequestContext()
        scope[_KEY] = exchange
        try:
            await self._answer(scope, receive, _identified(send, exchange), exchange)
        finally:
            _log_line(scope, exchange)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, exchange: RequestContext
    ) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            exchange.has_client_left = True
        except anyio.get_cancelled_exc_class():
            # Only uvicorn cancels requests, when the time for a graceful stop is over.
            with anyio.move_on_after(LAST_WORD_S, shield=True):
                await _tell(STOPPING, scope, receive, send, exchange)
        except PASSING:
            raise
        except BaseException as error:
            if exchange.status is not None:
                raise
            await _tell(error, scope, receive, send, exchange)
            let_go(error)


async def _tell(
    error: BaseException, scope: Scope, receive: Receive, send: Send, exchange: RequestContext
) -> None:
    if exchange.status is None:
        await error_response(error, exchange.request_id)(scope, receive, send)


def _identified(send: Send, exchange: RequestContext) -> Send:
    """`send`, with the `request-id` header on what it begins, and what a browser asks for before it shows it to a page."""
    header = (b"request-id", exchange.request_id.encode())

    async def send_identified(message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange.status = message["status"]
            headers = [*message["headers"], header, *_for_page(exchange.origin)]
            message = {**message, "headers": headers}
        await send(message)

    return send_identified


def known_parts(path: str) -> str:
    """`path` with a star for each part that could be a secret put into the wrong place. Ids are ours, and random."""
    parts = path.split("/")[:MAX_PARTS]
    return "/".join(part if part in WORDS or _ID.fullmatch(part) else "*" for part in parts)


def _for_page(origin: bytes | None) -> list[tuple[bytes, bytes]]:
    if origin is None:
        return []
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"request-id, retry-after, x-should-retry"),
        (b"vary", b"origin"),
    ]


def _log_line(scope: Scope, exchange: RequestContext) -> None:
    """Never a body, a key or a query; of a path what anybody could have written."""
    path = known_parts(scope["path"])
    spent_ms = (time.monotonic() - exchange.began_at) * 1000
    outcome = f"{exchange.status or '-'}{' client left' if exchange.has_client_left else ''}"
    usage = exchange.usage
    tokens = (
        ""
        if usage is None or exchange.status != 200
        else f", {usage.input_tokens + usage.cache_creation_input_tokens} new"
        f" + {usage.cache_read_input_tokens} cached tokens in, {usage.output_tokens} out"
    )
    _log.log(
        logging.DEBUG if exchange.is_poll else logging.INFO,
        "%s %s %s: %s in %.0f ms%s",
        exchange.request_id,
        scope["method"] if scope["method"] in METHODS else "*",
        path,
        outcome,
        spent_ms,
        tokens,
    )
