"""The worker's end of the connection to the front end: a socket, or two pipes of ssh."""

import math
import select
import socket
import time
from collections.abc import Callable
from typing import Protocol

from pensieve.engine import protocol
from pensieve.engine.protocol import Begun, Frame

_RECEIVE_BYTES = 1 << 20


class FrontEndGoneError(Exception):
    """The front end closed its end of the socket."""


class Connection(Protocol):
    """A socket, or two pipes."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        ...

    def recv(self, max_bytes: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> None: ...

    def set_inheritable(self, inheritable: bool, /) -> None: ...  # noqa: FBT001 -- as a socket's


class FrontEnd:
    def __init__(
        self,
        connection: Connection,
        silence_s: float = math.inf,  # after which a silent front end is gone
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Inherited from the front end; a grammar's trial compile must not inherit it in turn, or it
        # would keep the socket open after this process.
        connection.set_inheritable(False)
        self._connection = connection
        self._silence_s = silence_s
        self._clock = clock
        self._heard_s = clock()
        self._buffer = protocol.FrameBuffer()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def watch(self, wakeup: socket.socket) -> None:
        """Have `receive` also return when `wakeup` becomes readable."""
        self._poll.register(wakeup, select.POLLIN)

    def receive(self, wait_s: float | None) -> list[Frame]:
        """Return the frames that arrive within `wait_s` (None: no limit) or until a wakeup.

        None may arrive. Raises `FrontEndGoneError`.
        """
        ready = self._poll.poll(self._timeout_ms(wait_s))
        if all(fd != self._connection.fileno() for fd, _ in ready):
            if self._clock() - self._heard_s >= self._silence_s:
                raise FrontEndGoneError
            return []
        try:
            received = self._connection.recv(_RECEIVE_BYTES)
        except ConnectionError as error:
            raise FrontEndGoneError from error
        if not received:
            raise FrontEndGoneError
        self._heard_s = self._clock()
        return self._buffer.feed(received)

    def _timeout_ms(self, wait_s: float | None) -> float | None:
        limit_s = min(math.inf if wait_s is None else wait_s, self._silence_s)
        return None if math.isinf(limit_s) else limit_s * 1000

    def announce(self, work: str, timeout_s: float) -> None:
        """Announce long work; the next frame follows within `timeout_s`.

        Raises `FrontEndGoneError`.
        """
        self.send(Begun(work, timeout_s))

    def send(self, frame: Frame) -> None:
        """Block until the frame is sent. Raises `FrontEndGoneError`."""
        try:
            self._connection.sendall(protocol.encode(frame))
        except ConnectionError as error:
            raise FrontEndGoneError from error
