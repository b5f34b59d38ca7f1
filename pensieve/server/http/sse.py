"""Writes server-sent events: a stream of message events, and the pings that keep it alive."""

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
    ping_s: float = 15.0  # the longest silence in a stream


def format_event(event: StreamEvent) -> str:
    # `to_json` returns one line of ASCII, so no character of it can end the line.
    return f"event: {event.type}\ndata: {event.to_json()}\n\n"


class EventWriter:
    """Owns one stream's response: starts it with the first event, pings while it is silent."""

    def __init__(self, send: Send, ping_interval: PingInterval) -> None:
        self._send = send
        self._ping_interval = ping_interval
        self._begun = anyio.Event()
        self._written_at = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether the status was sent. After that an error is an event."""
        return self._begun.is_set()

    async def write(self, events: Sequence[StreamEvent]) -> None:
        """Send `events` in one chunk, preceded by the response's head if it was not sent.

        Waits while the client does not read; protocol.py ends that by its timeout.
        """
        if not self.has_begun:
            await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            self._begun.set()
        await self._send_text("".join(map(format_event, events)), is_last=False)

    async def send(self, events: Sequence[MessageEvent]) -> None:
        """Send an answer's events.

        A ping follows the first ones, so that a client sees a live stream.
        """
        await self.write(events if self.has_begun else (*events, Ping()))

    async def end(self) -> None:
        await self._send_text("", is_last=True)

    async def ping_when_silent(self) -> None:
        """Send a ping whenever nothing was sent for `ping_s`, until cancelled."""
        await self._begun.wait()
        while True:
            silent_s = time.monotonic() - self._written_at
            if silent_s >= self._ping_interval.ping_s:
                await self.write((Ping(),))
            else:
                await anyio.sleep(self._ping_interval.ping_s - silent_s)

    async def _send_text(self, text: str, *, is_last: bool) -> None:
        await self._send(
            {"type": "http.response.body", "body": text.encode(), "more_body": not is_last}
        )
        self._written_at = time.monotonic()
