"""ASGI middleware for access: Host and Origin checks that keep web pages out, the key, and CORS.

Loopback is no security boundary: any page in the user's browser reaches it, by a simple request or
a rebound DNS name. So Host must name this machine's loopback (or the configured host) and the port
that was reached, or none; an Origin must be this server's own; and all but a few public paths need
a key. That is the server's own, or a named one, which says whose request it is and which limits it
has. Some programs can send none: `require_key` lets them in from this machine, but never what a
browser marks as sent by a page, since a page can send a key. The checks use the ASGI scope alone,
never a URL built from headers. Settings add further names and origins, each matched exactly: a
wildcard could be rebound. Only of a scheme that is not the web's, such as an editor's webviews, all
origins can be allowed. Pages of this server need no CORS preflight; it is answered for tools that
send one anyway.
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pensieve.credentials.named_keys import NamedKey
from pensieve.errors import AuthenticationError, ForbiddenError
from pensieve.server.keys.headers import anthropic_headers, openai_headers
from pensieve.server.keys.limits import KeyLimiter
from pensieve.server.keys.ring import KeyRing
from pensieve.server.middleware.request_context import RequestContext, request_context_of
from pensieve.settings.resolve import DEFAULT_API_KEY, Settings, is_loopback, listed

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
PREFLIGHT_METHODS = "GET, HEAD, POST, DELETE"
PREFLIGHT_AGE_S = 600

MAX_NAME_CHARS = 100
_WILDCARDS = {"", "0.0.0.0", "::"}  # noqa: S104 -- listening on all interfaces adds no host name
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9.:\[\]-]+", re.ASCII)
_AUTHORITY = re.compile(r"(\[[0-9a-f:]+\]|[a-z0-9.-]+)(?::([0-9]{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Access:
    """Hosts and origins in lower case."""

    hosts: frozenset[str]
    origins: frozenset[bytes]
    key: bytes
    public_paths: frozenset[str]  # need no key
    keyless_hosts: frozenset[str]  # under these, programs need no key
    accepts_any_key: bool  # from those programs
    # The key is the default one, which is public, and other machines reach the server.
    is_key_for_this_machine: bool
    scheme: bytes  # http or https


def access_of(
    settings: Settings, public_paths: Iterable[str], certificate_names: Iterable[str] = ()
) -> Access:
    own_hosts = LOOPBACK_HOSTS | _host_names(settings.host)
    named = {name for each in certificate_names for name in _host_names(each)}
    hosts = own_hosts | set(listed(settings.allowed_hosts)) | named
    return Access(
        hosts,
        frozenset(origin.encode() for origin in listed(settings.allowed_origins)),
        settings.api_key.encode(),
        frozenset(public_paths),
        _keyless_hosts(settings, own_hosts, hosts),
        accepts_any_key=settings.require_key == "off",
        is_key_for_this_machine=settings.api_key == DEFAULT_API_KEY
        and not is_loopback(settings.host),
        scheme=b"https" if settings.tls_certificate else b"http",
    )


def _keyless_hosts(
    settings: Settings, own_hosts: frozenset[str], hosts: frozenset[str]
) -> frozenset[str]:
    if not is_loopback(settings.host):
        return frozenset()
    if settings.require_key == "off":
        return hosts
    is_public = settings.api_key == DEFAULT_API_KEY
    return own_hosts if settings.require_key == "auto" and is_public else frozenset()


class AccessMiddleware:
    """Raises `ForbiddenError`, `AuthenticationError` and `RateLimitedError`."""

    def __init__(self, app: ASGIApp, *, access: Access, keys: KeyRing, limiter: KeyLimiter) -> None:
        self._app = app
        self._access = access
        self._keys = keys
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = scope["headers"]
            if not scope["path"].startswith("/"):
                raise ForbiddenError(
                    "The request's target names a server, as if this were a proxy."
                )
            host = self._check_host(headers, scope.get("server"))
            _check_is_not_blind(headers)
            self._check_origin(headers, host, request_context_of(scope))
            if self._needs_key(scope) and (key := self._check_key(scope, host)):
                await self._serve(key, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _serve(self, key: NamedKey, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with a named key, within its limits."""
        context = request_context_of(scope)
        context.record.key_name = key.name
        headers = anthropic_headers if context.wire.name == "anthropic" else openai_headers
        context.limit_headers = headers(self._limiter.quotas(key))  # of a refusal
        with self._limiter.admitted(key, context.record):
            context.limit_headers = headers(self._limiter.quotas(key))
            await self._app(scope, receive, send)
        await self._limiter.save_if_due()

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
            if origin.lower() == self._access.scheme + b"://" + host.lower():
                continue
            scheme, separator, _ = origin.lower().partition(b"://")
            if not {origin.lower(), scheme + separator + b"*"} & self._access.origins:
                raise ForbiddenError(
                    f"Requests from web pages are not allowed.{_origin_hint(origin)}"
                )
            context.origin = origin

    def _needs_key(self, scope: Scope) -> bool:
        is_public = scope["path"] in self._access.public_paths
        # Browsers send no key with a preflight.
        return not (is_public and scope["method"] in {"GET", "HEAD"}) and not _is_preflight(scope)

    def _check_key(self, scope: Scope, host: bytes) -> NamedKey | None:
        """Return the named key that is sent; None for the server's own, or where none is needed."""
        headers = scope["headers"]
        keys = [*_values(headers, b"x-api-key"), *_values(headers, b"api-key")]
        bearers = [_bearer(value) for value in _values(headers, b"authorization")]
        # Clients with an empty setting send an empty header.
        sent = [key for key in (*keys, *bearers) if key]
        # All are compared, so that timing does not reveal which one was right.
        matches = [hmac.compare_digest(key, self._access.key) for key in sent]
        if any(matches) and not (self._access.is_key_for_this_machine and _is_remote(scope)):
            return None
        if sent and (named := self._keys.find(sent)):
            return named
        if self._is_let_in_without(sent, headers, host):
            return None
        raise _refusal(sent, keys, is_right=any(matches))

    def _is_let_in_without(
        self, sent: list[bytes], headers: list[tuple[bytes, bytes]], host: bytes
    ) -> bool:
        """Return whether a request without the right key is allowed. `sent`: its other keys."""
        name, _ = _authority(host)
        if name not in self._access.keyless_hosts or (sent and not self._access.accepts_any_key):
            return False
        return not _is_of_page(headers)


def _refusal(
    sent: Sequence[bytes], keys: Sequence[bytes], *, is_right: bool
) -> AuthenticationError:
    if not sent:
        return AuthenticationError("x-api-key header is required")
    if is_right:
        return AuthenticationError(
            "The default key is for this machine alone: from others a named key is needed"
        )
    return AuthenticationError("invalid x-api-key" if any(keys) else "Invalid bearer token")


def _is_remote(scope: Scope) -> bool:
    """Return whether the client is, or may be, on another machine."""
    peer, server = scope.get("client"), scope.get("server")
    if peer is None or server is None:
        return True
    # A connection from the address that it reaches is this machine's.
    if peer[0] == server[0]:
        return False
    try:
        return not ipaddress.ip_address(peer[0].removeprefix("::ffff:")).is_loopback
    except ValueError:
        return True


def _allow_hint(name: str | None) -> str:
    """Return a hint for clients in containers, for plain names alone."""
    if name is None or len(name) > MAX_NAME_CHARS:
        return ""
    return f" To let it in: pensieve config set allowed_hosts {name}, then pensieve restart."


def _origin_hint(origin: bytes) -> str:
    """Return a hint for pages, and programs whose windows are pages, that have a plain origin."""
    text = origin.decode("latin-1")
    if not _ORIGIN.fullmatch(text) or len(text) > MAX_NAME_CHARS:
        return ""
    return f" To allow it: pensieve config set allowed_origins {text}, then pensieve restart."


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
    # Another scheme counts as a wrong key, not as none; no key has blanks.
    return token.strip() if not value or scheme.lower() == b"bearer" else b" "


def _is_of_page(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether a browser marks the request as sent by a page, whatever its origin.

    `Sec-Fetch-Site: none` is a person's, who typed the address.
    """
    sites = _values(headers, b"sec-fetch-site")
    return bool(_values(headers, b"origin")) or any(site != b"none" for site in sites)


def _check_is_not_blind(headers: list[tuple[bytes, bytes]]) -> None:
    """Raise `ForbiddenError` for a request that a page of another site sends, as an image's for
    example, although it cannot read the answer: it could only keep the server busy.
    """
    is_elsewhere = {b"cross-site", b"same-site"} & {*_values(headers, b"sec-fetch-site")}
    if is_elsewhere and b"no-cors" in _values(headers, b"sec-fetch-mode"):
        raise ForbiddenError("Requests from web pages are not allowed.")


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
