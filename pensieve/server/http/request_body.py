"""Reads the bytes of a request's body, and enforces content type, encoding, size and speed, and the
memory that the bodies of all requests take.

It does not parse them (api/json_body.py does). JSON bodies must declare their content type: a web
page can send other types without a CORS preflight. A body takes several times its size while it is
decoded and rendered, so large ones wait for each other in order of arrival, and after a timeout are
refused as overloaded. Small ones never wait.
"""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pensieve.api.messages.request import MAX_BODY_BYTES
from pensieve.errors import (
    BodyEncodingUnsupportedError,
    BodyTimeoutError,
    CharsetUnsupportedError,
    EngineBusyError,
    InvalidRequestError,
    RequestTooLargeError,
)

# Without a budget twenty bodies of 31 MiB at once took 1.9 GB (2026-11, Linux).
BUDGET_BYTES = 64 * 2**20
# Bodies up to this size are not counted. The longest conversations of agents are about this large
# (2026-11).
SMALL_BYTES = 2**20
BUDGET_TIMEOUT_S = 10.0

# What Anthropic accepts. JSON itself is UTF-8, whatever the charset parameter.
_CHARSETS = {"utf-8", "utf8", "us-ascii", "iso-8859-1"}


@dataclass(frozen=True, slots=True)
class BodyPace:
    """Limits on how slowly a body may arrive: the longest pause and a total time."""

    idle_s: float = 30.0
    grace_s: float = 60.0
    # After the grace. Any phone network is faster; a byte a second would hold a connection for a
    # year.
    bytes_per_s: float = 64 * 1024

    def allowed_s(self, received: int) -> float:
        """Return the time within which `received` bytes must have arrived."""
        return self.grace_s + received / self.bytes_per_s


def limited(scope: Scope, receive: Receive, max_bytes: int) -> Receive:
    """Return a `receive` that raises `RequestTooLargeError` for a body of more than `max_bytes`.

    A body of announced size is refused before any of it is read, and one that no endpoint reads is
    not refused.
    """
    announced = announced_bytes(Headers(scope=scope))
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        if announced > max_bytes:
            raise RequestTooLargeError("Request exceeds the maximum size")
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise RequestTooLargeError("Request exceeds the maximum size")
        return message

    return receive_limited


async def read_body(request: Request, pace: BodyPace | None = None) -> bytes:
    """Return a whole JSON body. Raises what `require_json` and `body_chunks` raise."""
    require_json(request)
    body = bytearray()
    async for chunk in body_chunks(request, pace):
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


async def body_chunks(request: Request, pace: BodyPace | None = None) -> AsyncGenerator[bytes]:
    """Yield a body of any type in chunks as they arrive.

    Raises `BodyEncodingUnsupportedError`, `BodyTimeoutError`, and `RequestTooLargeError` beyond the
    limit of its route.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise BodyEncodingUnsupportedError
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
        yield chunk


def announced_bytes(headers: Headers) -> int:
    """Return the content length. A number with more digits than any size counts as too large."""
    announced = headers.get("content-length", "0")
    return int(announced[:19]) if announced.isdecimal() and announced.isascii() else 0


def _too_slow(pace: BodyPace, *, is_stalled: bool) -> BodyTimeoutError:
    if is_stalled:
        return BodyTimeoutError(f"no bytes arrived for {pace.idle_s:g} s")
    return BodyTimeoutError(f"fewer than {pace.bytes_per_s:g} bytes arrived per second")


class BodyBudget:
    """Owns the number of reserved bytes. Used on one event loop."""

    def __init__(self, max_bytes: int = BUDGET_BYTES, timeout_s: float = BUDGET_TIMEOUT_S) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._waiting: deque[tuple[int, anyio.Event]] = deque()
        self.reserved_bytes = 0

    @asynccontextmanager
    async def reserve(self, nbytes: int) -> AsyncGenerator["Reservation"]:
        """Reserve `nbytes` for the block. Raises `EngineBusyError` on timeout.

        A body larger than the whole budget is admitted when nothing else is reserved.
        """
        reservation = Reservation(self)
        if nbytes > SMALL_BYTES:
            await self._wait_for(nbytes)
            reservation.nbytes = nbytes
        try:
            yield reservation
        finally:
            self.adjust(-reservation.nbytes)

    def adjust(self, nbytes: int) -> None:
        """Change the reserved bytes without waiting, and admit the waiting bodies that now fit."""
        self.reserved_bytes += nbytes
        while self._waiting and self._fits(self._waiting[0][0]):
            waiting_bytes, admitted = self._waiting.popleft()
            self.reserved_bytes += waiting_bytes
            admitted.set()

    async def _wait_for(self, nbytes: int) -> None:
        if not self._waiting and self._fits(nbytes):
            self.reserved_bytes += nbytes
            return
        entry = (nbytes, anyio.Event())
        self._waiting.append(entry)
        try:
            with anyio.move_on_after(self._timeout_s):
                await entry[1].wait()
        except BaseException:
            self._withdraw(entry)
            raise
        if not entry[1].is_set():
            self._withdraw(entry)
            raise EngineBusyError("The server holds as many large requests as its memory allows.")

    def _withdraw(self, entry: tuple[int, anyio.Event]) -> None:
        # It may have been admitted in the same moment, or others may fit now.
        nbytes, admitted = entry
        if admitted.is_set():
            self.adjust(-nbytes)
        else:
            self._waiting.remove(entry)
            self.adjust(0)

    def _fits(self, nbytes: int) -> bool:
        return not self.reserved_bytes or self.reserved_bytes + nbytes <= self._max_bytes


class Reservation:
    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.nbytes = 0

    def resize(self, nbytes: int) -> None:
        """Replace the announced size by the actual one, without waiting."""
        nbytes = nbytes if nbytes > SMALL_BYTES else 0
        previous, self.nbytes = self.nbytes, nbytes
        self._budget.adjust(nbytes - previous)


class BodyAdmission:
    """ASGI middleware that reserves the memory of a request's body until it is answered."""

    def __init__(self, app: ASGIApp, *, budget: BodyBudget) -> None:
        self._app = app
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # A chunked body does not announce its size: assume the maximum until it has arrived.
        is_chunked = "transfer-encoding" in headers
        expected_bytes = MAX_BODY_BYTES if is_chunked else announced_bytes(headers)
        async with self._budget.reserve(expected_bytes) as reservation:
            await self._app(scope, _resize_as_received(receive, reservation), send)


def _resize_as_received(receive: Receive, reservation: Reservation) -> Receive:
    received = 0

    async def receive_counted() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > reservation.nbytes or not message.get("more_body", False):
                reservation.resize(received)
        return message

    return receive_counted
