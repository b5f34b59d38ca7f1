# pyright: basic
"""The engine worker's process: loads the model, then alternates between the socket and the scheduler.

Contract: frames in on one socket, frames out on the same, everything of MLX on this thread. Idle means blocked on that
socket, or on the bell of who waits for a grammar. The end of the socket, however it comes about, ends the process. It knows no text, no HTTP and no file but
the model folder. Run as `python -m pensieve.engine.worker.worker FD`.
"""

import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import assert_never

from pensieve.engine import protocol
from pensieve.engine.generation import EngineStats, Generation, Grammar
from pensieve.engine.long_operations import IMPORTING_S
from pensieve.engine.protocol import (
    Begun,
    Cancel,
    Failed,
    Frame,
    Load,
    Loaded,
    LoadFailed,
    Step,
    Submit,
    Unload,
)
from pensieve.engine.scheduling.scheduler import KeyedEvent
from pensieve.engine.worker.context import WorkerContext
from pensieve.engine.worker.stats import Reporter
from pensieve.settings.resolve import is_debug_asked

_RECEIVE_BYTES = 1 << 20
# While somebody waits for tokens, so much of the time may go into handing blocks to the disk's writer.
SPILL_SHARE = 0.02
# Before it ends, for handing it the rest.
LAST_SPILL_S = 10.0
# mlx-lm names every tensor that a model lacks or has too many.
MAX_REASON_CHARS = 300

_log = logging.getLogger("pensieve.engine")


class FrontEndGoneError(Exception):
    """The other end of the socket is closed: there is nobody to work for."""


class FrontEnd:
    """The worker's end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        # It was, for this process to have it; a grammar's trial that had it too would keep it open after this process.
        connection.set_inheritable(False)
        self._connection = connection
        self._buffer = protocol.FrameBuffer()
        self._heard = select.poll()
        self._heard.register(connection, select.POLLIN)

    def watch(self, bell: socket.socket) -> None:
        """From now on `receive` also ends when `bell` rings."""
        self._heard.register(bell, select.POLLIN)

    def receive(self, wait_s: float | None) -> list[Frame]:
        """What has arrived, or arrives within `wait_s` and before a bell rings; None waits for as long as it takes.

        Raises `FrontEndGoneError`.
        """
        ready = self._heard.poll(None if wait_s is None else wait_s * 1000)
        if all(fd != self._connection.fileno() for fd, _ in ready):
            return []
        try:
            received = self._connection.recv(_RECEIVE_BYTES)
        except ConnectionError as error:
            raise FrontEndGoneError from error
        if not received:
            raise FrontEndGoneError
        return self._buffer.feed(received)

    def announce(self, work: str, patience_s: float) -> None:
        """Say what begins, and for how long nothing else may come. Raises `FrontEndGoneError`."""
        self.send(Begun(work, patience_s))

    def send(self, frame: Frame) -> None:
        """Send one frame. Raises `FrontEndGoneError`."""
        try:
            self._connection.sendall(protocol.encode(frame))
        except ConnectionError as error:
            raise FrontEndGoneError from error


def serve(front_end: FrontEnd, work: WorkerContext) -> None:
    """Answer frames, step the batch and write prefixes behind until `Unload` or the socket's end."""
    scheduler, reporter = work.scheduler, Reporter(front_end.send, work.figures)
    front_end.watch(work.anteroom.bell)
    may_spill_s = 0.0
    spill_in_s: float | None = 0
    while True:
        relieve_in_s = work.relieve()
        reporter.figures(is_last=scheduler.is_idle and spill_in_s is None)
        frames = front_end.receive(_sooner(spill_in_s, relieve_in_s) if scheduler.is_idle else 0)
        if Unload() in frames:
            spill_rest(work.spill)
            return
        events = [event for frame in frames for event in _take(frame, work)]
        reporter.events(events + _admit(work))
        if not scheduler.is_idle:
            reporter.events(scheduler.admit())
            reporter.events(scheduler.advance())
            spill_in_s = 0
            if time.monotonic() < may_spill_s:
                continue
        began_s = time.monotonic()
        spill_in_s = work.spill()
        ended_s = time.monotonic()
        may_spill_s = ended_s + (ended_s - began_s) / SPILL_SHARE


def spill_rest(
    spill: Callable[[], float | None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Hand to the writer what is not on disk yet, for `LAST_SPILL_S` at most.

    Where nothing may be written now it is lost.
    """
    until_s = clock() + LAST_SPILL_S
    while (pause_s := spill()) is not None and clock() + pause_s < until_s:
        sleep(pause_s)


def _sooner(left_s: float | None, right_s: float | None) -> float | None:
    return min((each for each in (left_s, right_s) if each is not None), default=None)


def _take(frame: Frame, work: WorkerContext) -> list[KeyedEvent]:
    match frame:
        case Submit(key, Generation(grammar=Grammar()) as generation):
            failed = work.anteroom.add(key, generation)
            return [(key, failed)] if failed else []
        case Submit(key, generation):
            return [work.scheduler.submit(key, generation)]
        case Cancel(key):
            work.anteroom.cancel(key)
            work.scheduler.cancel(key)
            return []
        case Load() | Unload() | Loaded() | LoadFailed() | Begun() | Step() | EngineStats():
            raise ValueError(f"{type(frame).__name__} is not for a worker that has its model")
        case _:
            assert_never(frame)


def _admit(work: WorkerContext) -> list[KeyedEvent]:
    """Who has waited for a grammar joins the line."""
    return [
        (key, left) if isinstance(left, Failed) else work.scheduler.submit(key, left)
        for key, left in work.anteroom.take_ready()
    ]


def _load(front_end: FrontEnd) -> WorkerContext | None:
    """The work over the model that the first frame names; None where it does not load."""
    (load,) = front_end.receive(None)
    assert isinstance(load, Load)
    started = time.monotonic()
    try:
        front_end.announce("loading MLX", IMPORTING_S)
        from pensieve.engine.model.mlx_import import import_mlx_lm

        import_mlx_lm()
        from pensieve.engine.worker.build import build_engine

        work = build_engine(load, front_end.announce)
    except FrontEndGoneError:
        raise
    # Whatever is wrong with the model is told, not died of. One module of mlx-lm calls sys.exit.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        if is_debug_asked():
            _log.warning("the model did not load", exc_info=error)
        front_end.send(LoadFailed(reason_of(error)))
        return None
    # What is loaded by now stays: the collector would go through all of it in the middle of answers.
    gc.collect()
    gc.freeze()
    # In this order, so that an engine that is ready has its figures.
    front_end.send(work.figures(0.0))
    front_end.send(Loaded(time.monotonic() - started, work.context_tokens))
    return work


def reason_of(error: BaseException) -> str:
    """Why a model did not load, in a line. What mlx-lm raises on purpose is a ValueError and a sentence."""
    line = " ".join(str(error).split())
    if len(line) > MAX_REASON_CHARS:
        line = line[:MAX_REASON_CHARS].rstrip() + " …"
    is_sentence = isinstance(error, ValueError) and " " in line
    return line if is_sentence else f"{type(error).__name__}: {line}"


def main(socket_fd: int) -> None:
    """Work on the socket with this file descriptor until it closes."""
    # Ctrl-C in a terminal reaches the whole process group; the front end decides when this worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_quietly_on_abort()
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


def end_quietly_on_abort() -> None:
    """Have abort(3) end the process with exit code 6 (SIGABRT): its last words are in the log by then.

    Metal's errors end in abort. Left alone, macOS shows "Python quit unexpectedly" and writes a report for each (written from
    the documentation; on Linux the exit code is tested). A handler of Python's would never run: abort does not return to it.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    # signal(2) hands the handler the signal's number, which _exit(2) takes for the exit code.
    libc.signal(signal.SIGABRT, ctypes.cast(libc["_exit"], ctypes.c_void_p))


def _work(front_end: FrontEnd) -> None:
    if (work := _load(front_end)) is None:
        return
    try:
        serve(front_end, work)
    finally:
        work.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
