"""Reads the bytes of a request's body, and enforces content type, encoding, size and speed.

It does not parse them (api/json_body.py does). JSON bodies must declare their content type: a web
page can send other types without a CORS preflight.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request

from pensieve.api.messages.request import MAX_BODY_BYTES
from pensieve.errors import (
    BodyEncodingUnsupportedError,
    BodyTimeoutError,
    CharsetUnsupportedError,
    InvalidRequestError,
    RequestTooLargeError,
)


@dataclass(frozen=True, slots=True)
class BodyPace:
    """Limits on how slowly a body may arrive: the longest pause (hardening S7) and a total time."""

    idle_s: float = 30.0
    grace_s: float = 60.0
    # After the grace. Any phone network is faster; a byte a second would hold a connection for a
    # year.
    bytes_per_s: float = 64 * 1024

    def allowed_s(self, received: int) -> float:
        """Return the time within which `received` bytes must have arrived."""
        return self.grace_s + received / self.bytes_per_s


# What Anthropic accepts. JSON itself is UTF-8, whatever the charset parameter.
_CHARSETS = {"utf-8", "utf8", "us-ascii", "iso-8859-1"}


async def read_body(
    request: Request, *, max_bytes: int = MAX_BODY_BYTES, pace: BodyPace | None = None
) -> bytes:
    """Return a whole JSON body.

    Raises `InvalidRequestError`, `BodyEncodingUnsupportedError`, `BodyTimeoutError` and
    `RequestTooLargeError`.
    """
    require_json(request)
    body = bytearray()
    async for chunk in body_chunks(request, max_bytes=max_bytes, pace=pace):
        body += chunk
    return bytes(body)


def require_json(request: Request) -> None:
    """Check that the body is declared as JSON in UTF-8.

    Raises `InvalidRequestError` and `CharsetUnsupportedError`.
    """
    media_type, *parameters = request.headers.get("content-type", "").lower().split(";")
    if media_type.strip() != "application/json":
        raise InvalidRequestError("content-type: Input should be 'application/json'")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.strip() == "charset" and value.strip(' "') not in _CHARSETS:
            raise CharsetUnsupportedError


async def body_chunks(
    request: Request, *, max_bytes: int, pace: BodyPace | None = None
) -> AsyncGenerator[bytes]:
    """Yield a body of any type in chunks as they arrive, at most `max_bytes`.

    Raises `BodyEncodingUnsupportedError`, `BodyTimeoutError` and `RequestTooLargeError`.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise BodyEncodingUnsupportedError
    if announced_bytes(request.headers) > max_bytes:
        raise _too_large()
    pace = pace or BodyPace()
    began_at = anyio.current_time()
    received = 0
    stream = aiter(request.stream())
    while True:
        remaining_s = began_at + pace.allowed_s(received) - anyio.current_time()
        try:
            with anyio.fail_after(min(pace.idle_s, remaining_s)):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise _too_slow(pace, is_stalled=remaining_s > pace.idle_s) from None
        if chunk is None:
            return
        received += len(chunk)
        if received > max_bytes:
            raise _too_large()
        yield chunk


def announced_bytes(headers: Headers) -> int:
    """Return the content length. A number with more digits than any size counts as too large."""
    announced = headers.get("content-length", "0")
    return int(announced[:19]) if announced.isdecimal() and announced.isascii() else 0


def _too_slow(pace: BodyPace, *, is_stalled: bool) -> BodyTimeoutError:
    if is_stalled:
        return BodyTimeoutError(f"no bytes arrived for {pace.idle_s:g} s")
    return BodyTimeoutError(f"fewer than {pace.bytes_per_s:g} bytes arrived per second")


def _too_large() -> RequestTooLargeError:
    return RequestTooLargeError("Request exceeds the maximum size")
