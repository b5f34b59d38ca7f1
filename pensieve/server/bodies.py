"""The bytes of a request's body, or why they are not read: kind, encoding, size, and patience with slow senders.

Nothing here looks into the bytes (api/json_body.py does). A web page can send other content types without asking us
first, so JSON must say that it is JSON.
"""

from collections.abc import AsyncGenerator

import anyio
from starlette.requests import Request

from pensieve.api.request import MAX_BODY_BYTES
from pensieve.errors import (
    BodyEncodingUnsupportedError,
    BodyTimeoutError,
    CharsetUnsupportedError,
    InvalidRequestError,
    RequestTooLargeError,
)

# How long a body may stand still (hardening S7).
BODY_IDLE_S = 30.0

# What Anthropic takes. JSON itself is UTF-8 whatever is said of it.
_CHARSETS = {"utf-8", "utf8", "us-ascii", "iso-8859-1"}


async def read_body(
    request: Request, *, max_bytes: int = MAX_BODY_BYTES, idle_s: float = BODY_IDLE_S
) -> bytes:
    """The bytes of a JSON body, whole.

    Raises `InvalidRequestError`, `BodyEncodingUnsupportedError`, `BodyTimeoutError` and `RequestTooLargeError`.
    """
    require_json(request)
    body = bytearray()
    async for chunk in body_chunks(request, max_bytes=max_bytes, idle_s=idle_s):
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
    request: Request, *, max_bytes: int, idle_s: float = BODY_IDLE_S
) -> AsyncGenerator[bytes]:
    """A body of any kind, piece by piece as it comes; no more than `max_bytes` of it.

    Raises `BodyEncodingUnsupportedError`, `BodyTimeoutError` where nothing comes for `idle_s`, `RequestTooLargeError`.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise BodyEncodingUnsupportedError
    if _announced_bytes(request) > max_bytes:
        raise _too_large()
    received = 0
    stream = aiter(request.stream())
    while True:
        try:
            with anyio.fail_after(idle_s):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise BodyTimeoutError(idle_s) from None
        if chunk is None:
            return
        received += len(chunk)
        if received > max_bytes:
            raise _too_large()
        yield chunk


def _announced_bytes(request: Request) -> int:
    """Header values are ours to distrust: more digits than any size has count as too many bytes."""
    announced = request.headers.get("content-length", "0")
    return int(announced[:19]) if announced.isdecimal() and announced.isascii() else 0


def _too_large() -> RequestTooLargeError:
    return RequestTooLargeError("Request exceeds the maximum size")
