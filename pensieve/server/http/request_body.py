"""The bytes of a request's body, or why they are not read: kind, encoding, size, and patience with slow senders.

Nothing here looks into the bytes (api/json_body.py does). A web page can send other content types without asking us
first, so JSON must say that it is JSON.
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
    """How slowly a body may come, in seconds: standing still (hardening S7), and in all, by what has come."""

    idle_s: float = 30.0
    grace_s: float = 60.0
    # After the grace. A phone's network is faster; a byte a second would hold a connection for a year.
    bytes_per_s: float = 64 * 1024

    def allowed_s(self, received: int) -> float:
        """Return the time in which so much must have come."""
        return self.grace_s + received / self.bytes_per_s


# What Anthropic takes. JSON itself is UTF-8 whatever is said of it.
_CHARSETS = {"utf-8", "utf8", "us-ascii", "iso-8859-1"}


async def read_body(
    request: Request, *, max_bytes: int = MAX_BODY_BYTES, pace: BodyPace | None = None
) -> bytes:
    """The bytes of a JSON body, whole.

    Raises `InvalidRequestError`, `BodyEncodingUnsupportedError`, `BodyTimeoutError` and `RequestTooLargeError`.
    """
    require_json(request)
    body = bytearray()
    async for chunk in body_chunks(request, max_bytes=max_bytes, pace=pace):
        body += chunk
    return bytes(body)


def require_json(request: Request) -> None:
    """Raises `InvalidRequestError`, `CharsetUnsupportedError` where the body is not said to be JSON in UTF-8."""
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
    """A body of any kind, piece by piece as it comes; no more than `max_bytes` of it.

    Raises `BodyEncodingUnsupportedError`, `BodyTimeoutError` where it comes too slowly, `RequestTooLargeError`.
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
        left_s = began_at + pace.allowed_s(received) - anyio.current_time()
        try:
            with anyio.fail_after(min(pace.idle_s, left_s)):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise _too_slow(pace, is_still=left_s > pace.idle_s) from None
        if chunk is None:
            return
        received += len(chunk)
        if received > max_bytes:
            raise _too_large()
        yield chunk


def announced_bytes(headers: Headers) -> int:
    """Header values are ours to distrust: more digits than any size has count as too many bytes."""
    announced = headers.get("content-length", "0")
    return int(announced[:19]) if announced.isdecimal() and announced.isascii() else 0


def _too_slow(pace: BodyPace, *, is_still: bool) -> BodyTimeoutError:
    if is_still:
        return BodyTimeoutError(f"nothing came for {pace.idle_s:g} s")
    return BodyTimeoutError(f"less than {pace.bytes_per_s:g} bytes came in a second")


def _too_large() -> RequestTooLargeError:
    return RequestTooLargeError("Request exceeds the maximum size")
