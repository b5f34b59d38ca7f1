"""ASGI middleware for access: Host and Origin checks that keep web pages out, the key, and CORS.

Loopback is no security boundary: any page in the user's browser reaches it, by a simple request or
a rebound DNS name. So Host must name this machine's loopback (or the configured host) and the port
that was reached, or none; an Origin must be this server's own; and all but a few public paths need
the key. The checks use the ASGI scope alone, never a URL built from headers. Settings add further
names and origins, each matched exactly: a wildcard could be rebound. Pages of this server need no
CORS preflight; it is answered for tools that send one anyway.
"""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pensieve.errors import AuthenticationError, ForbiddenError
from pensieve.server.middleware.request_context import RequestContext, request_context_of
from pensieve.settings.resolve import Settings, listed

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
PREFLIGHT_METHODS = "GET, HEAD, POST, DELETE"
PREFLIGHT_AGE_S = 600

MAX_NAME_CHARS = 100
_WILDCARDS = {"", "0.0.0.0", "::"}  # noqa: S104 -- listening on all interfaces adds no host name
_AUTHORITY = re.compile(r"(\[[0-9a-f:]+\]|[a-z0-9.-]+)(?::([0-9]{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Access:
    """Hosts and origins in lower case."""

    hosts: frozenset[str]
    origins: frozenset[bytes]
    key: bytes
    public_paths: frozenset[str]  # need no key


def access_of(settings: Settings, public_paths: Iterable[str]) -> Access:
    return Access(
        LOOPBACK_HOSTS | _host_names(settings.host) | set(listed(settings.allowed_hosts)),
        frozenset(origin.encode() for origin in listed(settings.allowed_origins)),
        settings.api_key.encode(),
        frozenset(public_paths),
    )


class AccessMiddleware:
    """Raises `ForbiddenError` and `AuthenticationError`."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = scope["headers"]
            if not scope["path"].startswith("/"):
                raise ForbiddenError(
                    "The request's target names a server, as if this were a proxy."
                )
            host = self._check_host(headers, scope.get("server"))
            self._check_origin(headers, host, request_context_of(scope))
            if self._needs_key(scope):
                self._check_key(headers)
        await self._app(scope, receive, send)

    def _check_host(
        self, headers: list[tuple[bytes, bytes]], reached: tuple[str, int | None] | None
    ) -> bytes:
        """Return the Host header."""
        hosts = _values(headers, b"host")
        name, port = _authority(hosts[0]) if len(hosts) == 1 else (None, None)
        if name not in self._access.hosts:
            raise ForbiddenError(f"The Host header does not name this server.{_allow_hint(name)}")
        if port is not None and reached is not None and port != reached[1]:
            raise ForbiddenError(
                f"The Host header names port {port}, this server has {reached[1]}."
                " A tunnel must use the same port on both sides."
            )
        return hosts[0]

    def _check_origin(
        self, headers: list[tuple[bytes, bytes]], host: bytes, context: RequestContext
    ) -> None:
        """Record an origin from the settings: its pages may read the answer."""
        for origin in _values(headers, b"origin"):
            if origin.lower() == b"http://" + host.lower():
                continue
            if origin.lower() not in self._access.origins:
                raise ForbiddenError("Requests from web pages are not allowed.")
            context.origin = origin

    def _needs_key(self, scope: Scope) -> bool:
        is_public = scope["path"] in self._access.public_paths
        # Browsers send no key with a preflight.
        return not (is_public and scope["method"] in {"GET", "HEAD"}) and not _is_preflight(scope)

    def _check_key(self, headers: list[tuple[bytes, bytes]]) -> None:
        keys = [*_values(headers, b"x-api-key"), *_values(headers, b"api-key")]
        bearers = [_bearer(value) for value in _values(headers, b"authorization")]
        # All are compared, so that timing does not reveal which one was right.
        matches = [hmac.compare_digest(key, self._access.key) for key in (*keys, *bearers)]
        if not matches:
            raise AuthenticationError("x-api-key header is required")
        if not any(matches):
            raise AuthenticationError("invalid x-api-key" if keys else "Invalid bearer token")


def _allow_hint(name: str | None) -> str:
    """Return a hint for clients in containers, for plain names alone."""
    if name is None or len(name) > MAX_NAME_CHARS:
        return ""
    return f" To let it in: pensieve config set allowed_hosts {name}, then pensieve restart."


def _host_names(host: str) -> set[str]:
    """Return how clients write the host that the server listens on."""
    if host in _WILDCARDS:
        return set()
    return {f"[{host}]".lower() if ":" in host else host.lower()}


def _authority(value: bytes) -> tuple[str | None, int | None]:
    """Return the name and port in a Host header; None for the name if it is invalid."""
    match = _AUTHORITY.fullmatch(value.decode("latin-1").lower())
    if match is None:
        return None, None
    return match[1], None if match[2] is None else int(match[2])


def _bearer(value: bytes) -> bytes:
    scheme, _, token = value.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


# Preflights.


def _is_preflight(scope: Scope) -> bool:
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
        if scope["type"] == "http" and _is_preflight(scope):
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
        "access-control-allow-methods": PREFLIGHT_METHODS,
        "access-control-max-age": str(PREFLIGHT_AGE_S),
        "vary": "origin, access-control-request-method, access-control-request-headers",
    }
    if requested := headers.get("access-control-request-headers"):
        response_headers["access-control-allow-headers"] = requested
    return Response(status_code=204, headers=response_headers)
