"""ASGI middleware that answers CORS preflights. AccessMiddleware has already checked the origin.

Pages of this server need no preflight; this is for tools that send one anyway.
"""

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pensieve.server.middleware.request_context import request_context_of

METHODS = "GET, HEAD, POST, DELETE"
MAX_AGE_S = 600


def is_preflight(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return (
        scope["method"] == "OPTIONS"
        and "origin" in headers
        and "access-control-request-method" in headers
    )


class CORSMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_preflight(scope):
            is_same_origin = request_context_of(scope).origin is None
            await _preflight_response(Headers(scope=scope), is_same_origin=is_same_origin)(
                scope, receive, send
            )
        else:
            await self._app(scope, receive, send)


def _preflight_response(headers: Headers, *, is_same_origin: bool) -> Response:
    # For other origins RequestMiddleware adds this header.
    allow_origin = {"access-control-allow-origin": headers["origin"]} if is_same_origin else {}
    response_headers = {
        **allow_origin,
        "access-control-allow-methods": METHODS,
        "access-control-max-age": str(MAX_AGE_S),
        "vary": "origin, access-control-request-method, access-control-request-headers",
    }
    if requested := headers.get("access-control-request-headers"):
        response_headers["access-control-allow-headers"] = requested
    return Response(status_code=204, headers=response_headers)
