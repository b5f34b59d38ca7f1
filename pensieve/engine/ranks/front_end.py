"""The front end as every rank sees it: rank 0 has the connection, the others hear what it receives.

No MLX.
"""

import socket
import zlib

from pensieve.engine import protocol
from pensieve.engine.generation import Token
from pensieve.engine.protocol import Failed, Frame, Loaded, LoadFailed, Step, Unload, WorkerEvent
from pensieve.engine.ranks.wire import DIVERGED, Leave, Progress, Wire, leave
from pensieve.engine.worker.front_end import FrontEnd


class SharedFrontEnd:
    """own: the connection, which rank 0 alone has."""

    def __init__(
        self, wire: Wire, progress: Progress, own: FrontEnd | None = None, leave: Leave = leave
    ) -> None:
        self._wire = wire
        self._progress = progress
        self._own = own
        self._leave = leave

    def watch(self, wakeup: socket.socket) -> None:
        if self._own:
            self._own.watch(wakeup)

    def receive(self, wait_s: float | None) -> list[Frame]:
        """Return the same frames on each rank. Raises what `FrontEnd.receive` raises."""
        bodies = self._wire.decide("frames", lambda: self._received(wait_s))
        frames = [protocol.decode(body.encode()) for body in bodies]
        if Unload() in frames:
            self._wire.end()
        return frames

    def _received(self, wait_s: float | None) -> list[str]:
        assert self._own
        return [
            protocol.encode(frame)[protocol.HEADER_BYTES :].decode()
            for frame in self._own.receive(wait_s)
        ]

    def announce(self, work: str, timeout_s: float) -> None:
        self._progress.expect(timeout_s)
        if self._own:
            self._own.announce(work, timeout_s)

    def send(self, frame: Frame) -> None:
        """Send what rank 0 has, once all ranks have the same. Raises `FrontEndGoneError`."""
        match frame:
            case Step():
                self._compare(frame)
            case LoadFailed(message):
                self._wire.fail(message)
            case Loaded():
                self._wire.end_loading()
            case _:
                pass
        if self._own:
            self._own.send(frame)

    def _compare(self, step: Step) -> None:
        own = digest(step)
        if (decided := self._wire.decide("digest", lambda: own)) != own:
            self._leave(DIVERGED, f"ranks differ in what a step gave: {decided} and {own}")


def digest(step: Step) -> int:
    """Return a checksum of what must be equal on all ranks: not of probabilities and messages."""
    return zlib.crc32(repr([(key, _compared(event)) for key, event in step.events]).encode())


def _compared(event: WorkerEvent) -> object:
    match event:
        case Token(token_id):
            return token_id
        case Failed(kind=kind):
            return kind
        case _:
            return event
