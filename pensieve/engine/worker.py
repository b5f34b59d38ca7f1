# pyright: basic
"""The engine worker's process: loads the model, then alternates between the socket and the scheduler.

Contract: frames in on one socket, frames out on the same, everything of MLX on this thread. Idle means blocked in
`recv`. The end of the socket, however it comes about, ends the process. It knows no text, no HTTP and no file but
the model folder. Run as `python -m pensieve.engine.worker FD`.
"""

import logging
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import assert_never, cast

from pensieve.engine import protocol
from pensieve.engine.chunks import ChunkSizer
from pensieve.engine.prefix_cache import PrefixCache
from pensieve.engine.protocol import Cancel, Frame, Load, Loaded, LoadFailed, Step, Submit
from pensieve.engine.scheduler import KeyedEvent, Limits, Scheduler
from pensieve.settings import Device

_RECEIVE_BYTES = 1 << 20
# Prompt tokens of a chunk when nobody decodes. A CPU processes about a hundred a second.
_LARGEST_CHUNK: dict[Device, int] = {"gpu": 2048, "cpu": 128}

_log = logging.getLogger("pensieve.engine")


class FrontEndGoneError(Exception):
    """The other end of the socket is closed: there is nobody to work for."""


class FrontEnd:
    """The worker's end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = protocol.FrameBuffer()

    def receive(self, *, wait: bool) -> list[Frame]:
        """What has arrived; with `wait`, at least one chunk of it. Raises `FrontEndGoneError`."""
        if not wait and not select.select([self._connection], [], [], 0)[0]:
            return []
        try:
            received = self._connection.recv(_RECEIVE_BYTES)
        except ConnectionError as error:
            raise FrontEndGoneError from error
        if not received:
            raise FrontEndGoneError
        return self._buffer.feed(received)

    def send(self, frame: Frame) -> None:
        """Send one frame. Raises `FrontEndGoneError`."""
        try:
            self._connection.sendall(protocol.encode(frame))
        except ConnectionError as error:
            raise FrontEndGoneError from error


def serve(front_end: FrontEnd, scheduler: Scheduler) -> None:
    """Answer frames and step the batch until the front end is gone."""
    while True:
        frames = front_end.receive(wait=scheduler.is_idle)
        events = [event for frame in frames for event in _take(frame, scheduler)]
        if events:
            front_end.send(Step(tuple(events)))
        if not scheduler.is_idle and (events := scheduler.step()):
            front_end.send(Step(tuple(events)))


def _take(frame: Frame, scheduler: Scheduler) -> list[KeyedEvent]:
    match frame:
        case Submit(key, generation):
            return [scheduler.submit(key, generation)]
        case Cancel(key):
            scheduler.cancel(key)
            return []
        case Load() | Loaded() | LoadFailed() | Step():
            raise ValueError(f"{type(frame).__name__} is not for a worker that has its model")
        case _:
            assert_never(frame)


def _load(front_end: FrontEnd) -> Scheduler | None:
    """The scheduler over the model that the first frame names; None where it does not load."""
    (load,) = front_end.receive(wait=True)
    assert isinstance(load, Load)
    device = cast("Device", load.device)
    started = time.monotonic()
    try:
        scheduler, context_tokens = _scheduler_over(Path(load.model_folder), device)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the model is told, not died of
        _log.warning("the model did not load", exc_info=error)
        front_end.send(LoadFailed(f"{type(error).__name__}: {error}"))
        return None
    front_end.send(Loaded(time.monotonic() - started, context_tokens))
    return scheduler


def _scheduler_over(folder: Path, device: Device) -> tuple[Scheduler, int]:
    """The scheduler, and the tokens of context that memory guarantees."""
    # Imported here, so that a front end that only wants the frames never loads MLX.
    from pensieve.engine.batch import BatchBackend
    from pensieve.engine.caches import CacheMaker
    from pensieve.engine.memory import plan_memory
    from pensieve.engine.weights import load_weights

    model = load_weights(folder, device)
    plan = plan_memory(model, device)
    make_caches = CacheMaker(model, plan.precision)
    chunks = ChunkSizer(_LARGEST_CHUNK[device])
    prefixes = PrefixCache(f"{folder} {plan.precision}".encode())
    limits = Limits()

    def make_backend() -> BatchBackend:
        return BatchBackend(model, make_caches, chunks, limits.max_batch)

    scheduler = Scheduler(make_backend, prefixes, plan.budget, limits)
    return scheduler, plan.budget.context_tokens


def main(socket_fd: int) -> None:
    """Work on the socket with this file descriptor until it closes."""
    # Ctrl-C in a terminal reaches the whole process group; the front end decides when this worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_code = 0
    try:
        _work(FrontEnd(socket.socket(fileno=socket_fd)))
    except FrontEndGoneError:
        pass
    except BaseException:  # noqa: BLE001 - the last words of a process that is left without cleaning up
        _log.exception("the engine worker ends")
        exit_code = 1
    # MLX's threads can abort an ordinary interpreter exit (engine.md §1, "Threads").
    os._exit(exit_code)


def _work(front_end: FrontEnd) -> None:
    if scheduler := _load(front_end):
        serve(front_end, scheduler)


if __name__ == "__main__":
    main(int(sys.argv[1]))
