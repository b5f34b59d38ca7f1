"""Admission by memory: how many bytes of large bodies may be held at once, over all requests.

A body costs several times its size while it is decoded and rendered, so large ones wait for each other, first come first
served, and after a while are told that the server is busy. Small ones never wait. Held until the request is answered.
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

# Twenty bodies of 31 MiB at once took 1.9 GB before there was a budget (2026-11, Linux).
BUDGET_BYTES = 64 * 2**20
# What is not larger is not counted. The longest conversations of agents are about this (2026-11).
SMALL_BYTES = 2**20
PATIENCE_S = 10.0


class BodyBudget:
    """Owns the count, on one event loop."""

    def __init__(self, max_bytes: int = BUDGET_BYTES, patience_s: float = PATIENCE_S) -> None:
        self._max_bytes = max_bytes
        self._patience_s = patience_s
        self._waiting: deque[tuple[int, anyio.Event]] = deque()
        self.held_bytes = 0

    @asynccontextmanager
    async def hold(self, nbytes: int) -> AsyncGenerator["Hold"]:
        """Hold `nbytes` while in the block. Raises `EngineBusyError` where there is no room for too long.

        What is larger than the whole budget is let in alone.
        """
        hold = Hold(self)
        if nbytes > SMALL_BYTES:
            await self._wait_for(nbytes)
            hold.nbytes = nbytes
        try:
            yield hold
        finally:
            self.change(-hold.nbytes)

    def change(self, nbytes: int) -> None:
        """Count so many more, or fewer, without asking; who waits is let in as far as there is room."""
        self.held_bytes += nbytes
        while self._waiting and self._has_room(self._waiting[0][0]):
            wanted, turn = self._waiting.popleft()
            self.held_bytes += wanted
            turn.set()

    async def _wait_for(self, nbytes: int) -> None:
        if not self._waiting and self._has_room(nbytes):
            self.held_bytes += nbytes
            return
        place = (nbytes, anyio.Event())
        self._waiting.append(place)
        try:
            with anyio.move_on_after(self._patience_s):
                await place[1].wait()
        except BaseException:
            self._leave(place)
            raise
        if not place[1].is_set():
            self._leave(place)
            raise EngineBusyError("The server holds as many large requests as its memory allows.")

    def _leave(self, place: tuple[int, anyio.Event]) -> None:
        """Whoever gives up may have been let in at the same moment, or have kept others waiting."""
        nbytes, turn = place
        if turn.is_set():
            self.change(-nbytes)
        else:
            self._waiting.remove(place)
            self.change(0)

    def _has_room(self, nbytes: int) -> bool:
        return not self.held_bytes or self.held_bytes + nbytes <= self._max_bytes


class Hold:
    """One request's part of the budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.nbytes = 0

    def become(self, nbytes: int) -> None:
        """It is so many bytes in fact."""
        nbytes = nbytes if nbytes > SMALL_BYTES else 0
        before, self.nbytes = self.nbytes, nbytes
        self._budget.change(nbytes - before)


class BodyAdmission:
    """ASGI middleware: a request with a large body goes on once there is room for that."""

    def __init__(self, app: ASGIApp, *, budget: BodyBudget) -> None:
        self._app = app
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with self._budget.hold(_expected_bytes(scope)) as hold:
            await self._app(scope, _counted(receive, hold), send)


def _expected_bytes(scope: Scope) -> int:
    """What comes in pieces does not say how much it is; as much as a message may be, until it is known."""
    headers = Headers(scope=scope)
    return MAX_BODY_BYTES if "transfer-encoding" in headers else announced_bytes(headers)


def _counted(receive: Receive, hold: Hold) -> Receive:
    received = 0

    async def receive_counted() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > hold.nbytes or not message.get("more_body", False):
                hold.become(received)
        return message

    return receive_counted
