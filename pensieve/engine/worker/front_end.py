"""The worker's end of the connection to the front end: a socket, or two pipes of ssh."""

import select
import socket
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


class FramePort(Protocol):
    """What the worker's main loop needs of the front end."""

    def watch(self, wakeup: socket.socket) -> None: ...

    def receive(self, wait_s: float | None) -> list[Frame]: ...

    def announce(self, work: str, timeout_s: float) -> None: ...

    def send(self, frame: Frame) -> None: ...


class FrontEnd:
    def __init__(self, connection: Connection) -> None:
        # Inherited from the front end; a grammar's trial compile must not inherit it in turn, or it
        # would keep the socket open after this process.
        connection.set_inheritable(False)
        self._connection = connection
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
        ready = self._poll.poll(None if wait_s is None else wait_s * 1000)
        if all(fd != self._connection.fileno() for fd, _ in ready):
            return []
        try:
            received = self._connection.recv(_RECEIVE_BYTES)
        except ConnectionError as error:
            raise FrontEndGoneError from error
        if not received:
            raise FrontEndGoneError
        return self._buffer.feed(received)

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
