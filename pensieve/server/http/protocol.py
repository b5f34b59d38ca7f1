"""One client's connection: uvicorn's h11 protocol with limits, deadlines, and refusals in Anthropic's envelope.

uvicorn alone waits forever for a head, takes one of any size that arrives at once, reads on after its answer for as long
as a body lasts, waits forever for a client that stopped reading, and answers what is no HTTP in plain text.
It knows no route; bodies have their own deadline (request_body.py).
"""

# pyright: basic

import asyncio
import logging
import re
import socket
from contextlib import suppress
from typing import Any, Literal

import h11

# http_server() alone imports this module, when something is served.
from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: TID253

from pensieve.api.base import new_id
from pensieve.errors import HeadTooLargeError, InvalidRequestError, PensieveError, RequestError
from pensieve.server.errors import STOPPING, error_response, fault_of
from pensieve.server.http.connection_limits import MAX_HEAD_BYTES, MAX_HEADERS, ConnectionTimeouts
from pensieve.server.http.disconnect import ABORT

_log = logging.getLogger("pensieve.server")

# h11 takes 6 µs for each piece of a body: 256 kB of them that arrive at once, a byte in each, would be 0.3 s
# (2026-11-22, two-core Linux machine).
MAX_TINY_PIECES = 2_000
TINY_BYTES = 64


class LimitedH11(h11.Connection):
    """h11's server side, stricter about sizes and about bodies whose end could be read in two ways."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self.refusal: h11.RemoteProtocolError | None = None
        self._pieces = self._piece_bytes = 0

    def next_event(self) -> Any:
        """The next event. Raises `h11.RemoteProtocolError` and remembers it, since uvicorn does not hand it on."""
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                _check_head(event)
                self._pieces = self._piece_bytes = 0
            elif isinstance(event, h11.Data):
                self._check_piece(len(event.data))
        except h11.RemoteProtocolError as error:
            self.refusal = error
            raise
        return event

    def _check_piece(self, size: int) -> None:
        self._pieces += 1
        self._piece_bytes += size
        if self._pieces > MAX_TINY_PIECES and self._piece_bytes < TINY_BYTES * self._pieces:
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


# h11 quotes the line that it cannot read; a key could be in that, and this is logged.
_QUOTED = re.compile(r"[:,]?\s*(?:bytearray\()?b['\"].*", re.DOTALL)


def _request_error(error: h11.RemoteProtocolError | None) -> RequestError:
    reason = _QUOTED.sub("", str(error))
    if error is not None and error.error_status_hint == 431:
        return HeadTooLargeError(reason)
    return InvalidRequestError(f"The request is not valid HTTP: {reason}")


# What is awaited of the client: a request's head, or that it has sent the rest after it was answered.
_Awaited = Literal["head", "rest"]


class DeadlineProtocol(H11Protocol):
    """Owns its timers. uvicorn makes one per connection; `patience` is handed in by `http_server`."""

    def __init__(self, *args: Any, patience: ConnectionTimeouts, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = LimitedH11()
        self.app = self._cuttable(self.app)
        self._patience = patience
        self._awaited: _Awaited | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._has_received = False
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin to wait for a head."""
        super().connection_made(transport)
        # asyncio does so only for sockets made with IPPROTO_TCP by name. Without it a body waits for the acknowledgement of
        # its head, and each event of a stream for that of the one before: 40 ms (2026-11-22, Linux, loopback).
        # macOS refuses it (EINVAL) once the client has reset the connection, of which asyncio tells in a moment.
        with suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what came; after a refusal throw it away."""
        self._has_received = True
        if not self._is_refused:
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next head, or for the rest of a body that nobody read."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timers."""
        self._await(None)
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads too slowly; one that reads nothing more is left."""
        super().pause_writing()
        self._stall = self.loop.call_later(self._patience.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def shutdown(self) -> None:
        """The server stops: a request that is half here is told so; an open answer is this connection's last."""
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(STOPPING)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's word for what h11 cannot read, in our own form."""
        self._refuse(_request_error(self.conn.refusal))

    def _cuttable(self, app: Any) -> Any:
        async def cuttable(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "extensions": {ABORT: self._cut}}, receive, send)

        return cuttable

    def _cut(self) -> None:
        """Close after what is written, in the middle of a response."""
        self.cycle.disconnected = True
        self.transport.close()

    def _watch(self) -> None:
        """Have the right timer running. uvicorn's own runs between a response and what comes after it."""
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
            self._deadline = self.loop.call_later(self._patience.head_s, self._end_of_patience)
        elif awaited == "rest":
            self._deadline = self.loop.call_later(self._patience.rest_s, self.transport.close)

    def _end_of_patience(self) -> None:
        if self._has_received:
            self._refuse(InvalidRequestError("The request's head did not arrive in time."))
        else:
            self.transport.close()

    def _refuse(self, error: PensieveError) -> None:
        """Tell what is wrong, then only listen: a socket closed over unread bytes takes the answer back."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.close()
            return
        self._is_refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(self._told(error))
        self.transport.write_eof()
        self.flow.resume_reading()
        self._await("rest")

    def _told(self, error: PensieveError) -> bytes:
        request_id = new_id("req")
        _log.info("%s -: %d %s", request_id, fault_of(error).status, error.message)
        response = error_response(error, request_id)
        own = [(b"request-id", request_id.encode()), (b"connection", b"close")]
        events = (
            h11.Response(
                status_code=response.status_code, headers=[*response.raw_headers, *own], reason=b""
            ),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        )
        return b"".join(self.conn.send(event) or b"" for event in events)
