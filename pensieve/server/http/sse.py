"""Server-sent events: the bytes of a stream of message events, and the pings that keep it alive. The only SSE writer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import anyio
from starlette.types import Send

from pensieve.api.messages.events import MessageEvent, Ping, StreamEvent

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True, slots=True)
class PingInterval:
    """ping_s: a client hears something at least this often."""

    ping_s: float = 15.0


def format_event(event: StreamEvent) -> str:
    """One event's text. `to_json` gives one line of ASCII, so no letter of it can end a line."""
    return f"event: {event.type}\ndata: {event.to_json()}\n\n"


class EventWriter:
    """Owns one stream's response: begins it with the first event, pings while it is silent."""

    def __init__(self, send: Send, pace: PingInterval) -> None:
        self._send = send
        self._pace = pace
        self._begun = anyio.Event()
        self._written_at = 0.0

    @property
    def has_begun(self) -> bool:
        """The status is sent; what goes wrong from now on is an event."""
        return self._begun.is_set()

    async def write(self, events: Sequence[StreamEvent]) -> None:
        """Send `events` together, before them the head of the response if it is not out yet.

        Waits while the client does not read; its connection ends that (server/http/protocol.py).
        """
        if not self.has_begun:
            await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            self._begun.set()
        await self._send_text("".join(map(format_event, events)), is_last=False)

    async def begin_or_go_on(self, events: Sequence[MessageEvent]) -> None:
        """Send an answer's events; right after the first ones a ping, so that a client sees a live stream."""
        await self.write(events if self.has_begun else (*events, Ping()))

    async def end(self) -> None:
        """Close the response."""
        await self._send_text("", is_last=True)

    async def ping_when_silent(self) -> None:
        """Ping whenever nothing was sent for `ping_s`, until cancelled."""
        await self._begun.wait()
        while True:
            silent_s = time.monotonic() - self._written_at
            if silent_s >= self._pace.ping_s:
                await self.write((Ping(),))
            else:
                await anyio.sleep(self._pace.ping_s - silent_s)

    async def _send_text(self, text: str, *, is_last: bool) -> None:
        await self._send(
            {"type": "http.response.body", "body": text.encode(), "more_body": not is_last}
        )
        self._written_at = time.monotonic()
