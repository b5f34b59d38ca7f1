"""Streams an answer while it is generated, and stops the work of a client that leaves.

The one place that opens a task group for a request. Knows no wire: events are text here.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from pensieve.server.errors import FINAL_SEND_TIMEOUT_S, PASS_THROUGH, STOPPING, release_frames

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
Work = Callable[[], Coroutine[Any, Any, None]]
Abort = Callable[[], None]

# The key in ASGI's `extensions` under which protocol.py passes the abort function.
ABORT = "pensieve.abort"


@dataclass(frozen=True, slots=True)
class PingInterval:
    ping_s: float = 15.0  # the longest silence in a stream


class EventWriter:
    """Owns one stream's response: starts it with the first events, pings while it is silent."""

    def __init__(self, send: Send, ping: Callable[[], str], ping_interval: PingInterval) -> None:
        self._send = send
        self._ping = ping
        self._ping_interval = ping_interval
        self._begun = anyio.Event()
        self._written_at = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether the status was sent. After that an error is an event."""
        return self._begun.is_set()

    async def write(self, events: str) -> None:
        """Send `events` in one chunk.

        A ping follows the first ones, so that a client sees a live stream. Waits while the client
        does not read; protocol.py ends that by its timeout.
        """
        if not self._begun.is_set():
            await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            self._begun.set()
            events += self._ping()
        await self._send_text(events, is_last=False)

    async def end(self, events: str = "") -> None:
        if events:
            await self._send_text(events, is_last=False)
        await self._send_text("", is_last=True)

    async def ping_when_silent(self) -> None:
        """Send a ping whenever nothing was sent for `ping_s`, until cancelled."""
        await self._begun.wait()
        while True:
            silent_s = time.monotonic() - self._written_at
            if silent_s >= self._ping_interval.ping_s:
                await self._send_text(self._ping(), is_last=False)
            else:
                await anyio.sleep(self._ping_interval.ping_s - silent_s)

    async def _send_text(self, text: str, *, is_last: bool) -> None:
        await self._send(
            {"type": "http.response.body", "body": text.encode(), "more_body": not is_last}
        )
        self._written_at = time.monotonic()


async def stream_until_disconnect(
    receive: Receive,
    work: Work,
    writer: EventWriter,
    fail: Callable[[BaseException], Awaitable[None]],
) -> None:
    """Run `work`, which writes to `writer`, and end the stream.

    An error before the stream begins is raised: it becomes a status. Later, `fail` must end the
    stream. Raises `ClientDisconnect` if the client left before the end.
    """
    try:
        await run_until_disconnect(receive, work, background=writer.ping_when_silent)
    except ClientDisconnect:
        raise
    except anyio.get_cancelled_exc_class():
        with anyio.move_on_after(FINAL_SEND_TIMEOUT_S, shield=True):
            if writer.has_begun:
                await fail(STOPPING)
        raise
    except PASS_THROUGH:
        raise
    except BaseException as error:
        if not writer.has_begun:
            raise
        await fail(error)
        release_frames(error)
    else:
        await writer.end()


async def run_until_disconnect(
    receive: Receive, work: Work, background: Work | None = None
) -> None:
    """Run `work`, with `background` next to it. The request's body must have been read.

    Raises `ClientDisconnect` if the client left before the end. Errors come out as they were
    raised, not in a group.
    """
    is_done = False
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_on_disconnect, receive, tasks.cancel_scope)
            if background is not None:
                tasks.start_soon(background)
            await work()
            is_done = True
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    if not is_done:
        raise ClientDisconnect


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def abort_of(scope: Scope) -> Abort | None:
    """Return what closes the connection at once, so that the client sees a truncated answer.

    None without a real connection, as in tests.
    """
    return scope.get("extensions", {}).get(ABORT)
