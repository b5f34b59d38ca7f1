"""One client's connection: uvicorn's h11 protocol with limits, timeouts and errors in an envelope.

uvicorn alone waits without limit for a head, accepts one of any size that arrives at once, reads
the rest of a body without limit after its answer, waits without limit for a client that stopped
reading, and answers invalid HTTP in plain text. This module knows no routes; bodies have their own
timeouts (request_body.py).
"""

# pyright: basic

import asyncio
import logging
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import h11

# Imported only where a server starts: in run.py and by http_server().
from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: TID253

from pensieve.api.base import new_id
from pensieve.errors import HeadTooLargeError, InvalidRequestError, PensieveError, RequestError
from pensieve.logs import naming
from pensieve.server.errors import STOPPING
from pensieve.server.http.connection_limits import MAX_HEAD_BYTES, MAX_HEADERS, ConnectionTimeouts
from pensieve.server.http.event_stream import ABORT
from pensieve.server.wire import ANTHROPIC, Wire, error_response

_log = logging.getLogger("pensieve.server")

# h11 takes 6 µs per chunk of a body: 256 kB that arrive at once in chunks of one byte would take
# 0.3 s (2026-11-22, two-core Linux machine).
MAX_TINY_CHUNKS = 2_000
TINY_BYTES = 64


class LimitedH11(h11.Connection):
    """h11's server side, stricter about sizes and about bodies whose end is ambiguous."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self.refusal: h11.RemoteProtocolError | None = None
        self._chunks = self._chunk_bytes = 0

    def next_event(self) -> Any:
        """Raises `h11.RemoteProtocolError`; also stores it, since uvicorn does not pass it on."""
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                _check_head(event)
                self._chunks = self._chunk_bytes = 0
            elif isinstance(event, h11.Data):
                self._check_chunk(len(event.data))
        except h11.RemoteProtocolError as error:
            self.refusal = error
            raise
        return event

    def _check_chunk(self, size: int) -> None:
        self._chunks += 1
        self._chunk_bytes += size
        if self._chunks > MAX_TINY_CHUNKS and self._chunk_bytes < TINY_BYTES * self._chunks:
            raise h11.RemoteProtocolError("body in too many small pieces")


def _check_head(head: h11.Request) -> None:
    names = {name for name, _ in head.headers}
    if len(head.headers) > MAX_HEADERS:
        raise h11.RemoteProtocolError("too many headers", error_status_hint=431)
    size = len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)
    if size > MAX_HEAD_BYTES:
        raise h11.RemoteProtocolError("head too long", error_status_hint=431)
    if {b"content-length", b"transfer-encoding"} <= names:
        raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")


# h11 quotes the line that it cannot parse; it may contain a key, and this is logged.
_QUOTED = re.compile(r"[:,]?\s*(?:bytearray\()?b['\"].*", re.DOTALL)


def _request_error(error: h11.RemoteProtocolError | None) -> RequestError:
    reason = _QUOTED.sub("", str(error))
    if error is not None and error.error_status_hint == 431:
        return HeadTooLargeError(reason)
    return InvalidRequestError(f"The request is not valid HTTP: {reason}")


# What the connection waits for: a request's head, or the rest of one that was already answered.
_Awaited = Literal["head", "rest"]


class DeadlineProtocol(H11Protocol):
    """Owns its timers. uvicorn makes one per connection, through `http_server`."""

    def __init__(
        self,
        *args: Any,
        timeouts: ConnectionTimeouts,
        wire_of: Callable[[Any], Wire],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.conn = LimitedH11()
        self.app = self._abortable(self.app)
        self._timeouts = timeouts
        self._wire_of = wire_of
        self._awaited: _Awaited | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._has_received = False
        self._is_refused = False

    def connection_made(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        # asyncio sets this only for sockets created with IPPROTO_TCP. Without it a body waits for
        # the acknowledgement of its head, and each event of a stream for that of the one before: 40
        # ms each (2026-11-22, Linux, loopback). macOS refuses it (EINVAL) once the client has reset
        # the connection; asyncio then reports that shortly.
        with suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._has_received = True
        if not self._is_refused:
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._await(None)
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall = self.loop.call_later(self._timeouts.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def shutdown(self) -> None:
        """Refuse a request that has only partly arrived; close after an open answer."""
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(STOPPING)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(_request_error(self.conn.refusal))

    def _abortable(self, app: Any) -> Any:
        async def abortable(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "extensions": {ABORT: self._abort}}, receive, send)

        return abortable

    def _abort(self) -> None:
        """Close after the bytes already written, in the middle of a response."""
        self.cycle.disconnected = True
        self.transport.close()

    def _watch(self) -> None:
        """Start the timer that fits the state. Between requests uvicorn runs its own."""
        if self._is_refused or self.transport.is_closing():
            return
        state = self.conn.their_state
        if state is h11.IDLE and self.conn.trailing_data[0]:
            self._unset_keepalive_if_required()
        if state is h11.IDLE and self.timeout_keep_alive_task is None:
            self._await("head")
        elif state is h11.SEND_BODY and self.cycle is not None and self.cycle.response_complete:
            self._await("rest")
        else:
            self._await(None)

    def _await(self, awaited: _Awaited | None) -> None:
        if awaited == self._awaited:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._awaited = awaited
        if awaited == "head":
            self._deadline = self.loop.call_later(self._timeouts.head_s, self._on_head_timeout)
        elif awaited == "rest":
            self._deadline = self.loop.call_later(self._timeouts.rest_s, self.transport.close)

    def _on_head_timeout(self) -> None:
        if self._has_received:
            self._refuse(InvalidRequestError("The request's head did not arrive in time."))
        else:
            self.transport.close()

    def _refuse(self, error: PensieveError) -> None:
        """Send an error, then discard what arrives.

        The client would lose the error if the socket were closed with unread bytes.
        """
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.close()
            return
        self._is_refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(self._error_bytes(error))
        if self.transport.can_write_eof():  # TLS has none: the client sees the end when it closes
            self.transport.write_eof()
        self.flow.resume_reading()
        self._await("rest")

    def _error_bytes(self, error: PensieveError) -> bytes:
        request_id = new_id("req")
        is_in_head = self.cycle is None or self.cycle.response_complete
        wire = ANTHROPIC if is_in_head else self._wire_of(self.scope)
        response = error_response(wire, error, request_id)
        with naming(request_id):
            _log.info("-: %d %s", response.status_code, error.message)
        names = (b"request-id", b"x-request-id")
        own = [*((name, request_id.encode()) for name in names), (b"connection", b"close")]
        events = (
            h11.Response(
                status_code=response.status_code, headers=[*response.raw_headers, *own], reason=b""
            ),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        )
        return b"".join(self.conn.send(event) or b"" for event in events)
