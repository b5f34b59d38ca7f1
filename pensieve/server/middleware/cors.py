"""What a browser asks before a page may send a request (CORS). Who may ask was decided before: our own origin, and those set.

A page of ours needs no leave; this is for tools that ask anyway, and they get the true answer.
"""

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pensieve.server.middleware.request_context import exchange_of

METHODS = "GET, HEAD, POST, DELETE"
MAX_AGE_S = 600


def is_preflight(scope: Scope) -> bool:
    """Whether the request asks for leave to send another one."""
    headers = Headers(scope=scope)
    return (
        scope["method"] == "OPTIONS"
        and "origin" in headers
        and "access-control-request-method" in headers
    )


class CORSMiddleware:
    """ASGI middleware that answers preflights and hands on the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] == "http" and is_preflight(scope):
            is_ours = exchange_of(scope).origin is None
            await _leave(Headers(scope=scope), is_ours=is_ours)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _leave(headers: Headers, *, is_ours: bool) -> Response:
    """is_ours: the boundary does not name the origin."""
    named = {"access-control-allow-origin": headers["origin"]} if is_ours else {}
    given = {
        **named,
        "access-control-allow-methods": METHODS,
        "access-control-max-age": str(MAX_AGE_S),
        "vary": "origin, access-control-request-method, access-control-request-headers",
    }
    if asked := headers.get("access-control-request-headers"):
        given["access-control-allow-headers"] = asked
    return Response(status_code=204, headers=given)
