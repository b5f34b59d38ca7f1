"""ASGI middleware that admits large request bodies by memory, over all requests.

A body takes several times its size while it is decoded and rendered, so large ones wait for each
other in order of arrival, and after a timeout are refused as overloaded. Small ones never wait. The
memory is reserved until the request is answered.
"""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pensieve.api.messages.request import MAX_BODY_BYTES
from pensieve.errors import EngineBusyError
from pensieve.server.http.request_body import announced_bytes

# Without a budget twenty bodies of 31 MiB at once took 1.9 GB (2026-11, Linux).
BUDGET_BYTES = 64 * 2**20
# Bodies up to this size are not counted. The longest conversations of agents are about this large
# (2026-11).
SMALL_BYTES = 2**20
TIMEOUT_S = 10.0


class BodyBudget:
    """Owns the number of reserved bytes. Used on one event loop."""

    def __init__(self, max_bytes: int = BUDGET_BYTES, timeout_s: float = TIMEOUT_S) -> None:
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
    def __init__(self, app: ASGIApp, *, budget: BodyBudget) -> None:
        self._app = app
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with self._budget.reserve(_expected_bytes(scope)) as reservation:
            await self._app(scope, _resize_as_received(receive, reservation), send)


def _expected_bytes(scope: Scope) -> int:
    """A chunked body does not announce its size: assume the maximum until it has arrived."""
    headers = Headers(scope=scope)
    return MAX_BODY_BYTES if "transfer-encoding" in headers else announced_bytes(headers)


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
