# pyright: basic
"""The engine worker's process: loads the model, then alternates between socket and scheduler.

Frames arrive and leave on one socket, and all of MLX runs on this thread. An idle worker blocks on
that socket and on the wakeup socket of the grammar queue. The process ends when the front end's end
closes, for whatever reason. It knows no text, no HTTP and no file but the model folder. Run as
`python -m pensieve.engine.worker.worker FD`.
"""

import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn, assert_never

from pensieve.engine.generation import EngineStats, Generation, Grammar, Token
from pensieve.engine.long_operations import IMPORTING_S
from pensieve.engine.protocol import (
    Begun,
    Cancel,
    Failed,
    Frame,
    Load,
    Loaded,
    LoadFailed,
    Pixels,
    Preloaded,
    Step,
    Submit,
    Unload,
    Wanted,
)
from pensieve.engine.scheduling.pixel_desk import PixelDesk
from pensieve.engine.scheduling.scheduler import KeyedEvent, Scheduler
from pensieve.engine.worker.context import WorkerContext
from pensieve.engine.worker.front_end import FramePort, FrontEnd, FrontEndGoneError
from pensieve.engine.worker.stats import PromptThroughput, Throughput
from pensieve.settings.resolve import is_debug_enabled

if TYPE_CHECKING:
    from pensieve.engine.worker.parts import EngineParts

# Between two `EngineStats` while there is work.
REPORT_S = 1.0
# An idle worker waits this long for requests that arrived at the server together with the first.
FOLLOWERS_S = 0.03
# Share of the time that may go into queueing blocks for the disk while requests run.
SPILL_SHARE = 0.02
# Between the last answer and the first block. A client that works with tools sends its next request
# at once, and would wait for the block: 98 MB of Phi-3-mini's caches in full precision.
SPILL_PAUSE_S = 0.2
# For queueing the remaining blocks before the process ends.
LAST_SPILL_S = 10.0
# mlx-lm lists every missing or unexpected tensor.
MAX_REASON_CHARS = 300

_log = logging.getLogger("pensieve.engine")

# Returns what ranks of one model replace; None for a worker that has the whole model.
MakeParts = Callable[[], "EngineParts | None"]


class Reporter:
    """Sends events as they come and `EngineStats` about once a second. Owned by the main loop."""

    def __init__(
        self,
        send: Callable[[Frame], None],
        read_stats: Callable[[], EngineStats],  # without rates
        clock: Callable[[], float] = time.monotonic,
        pixels: PixelDesk | None = None,
    ) -> None:
        self._send = send
        self._pixels = pixels or PixelDesk()
        self._read_stats = read_stats
        self._clock = clock
        self._throughput = Throughput()
        self._prompt_throughput = PromptThroughput()
        self._sent: EngineStats | None = None
        self._last_report_s = clock()

    def send_events(self, events: list[KeyedEvent]) -> None:
        if not events:
            return
        self._send(Step(tuple(events)))
        if tokens := sum(isinstance(event, Token) for _, event in events):
            self._throughput.note(tokens, self._clock())

    def send_step(self, scheduler: Scheduler) -> None:
        """Advance the scheduler and send what comes of it."""
        began_s, prefilled_before = self._clock(), scheduler.prefilled_tokens
        events = scheduler.advance()
        for key, picture_id in self._pixels.take_wanted():
            self._send(Wanted(key, picture_id))
        prefilled = scheduler.prefilled_tokens - prefilled_before
        self._prompt_throughput.note(prefilled, self._clock() - began_s)
        self.send_events(events)

    def send_stats(self, *, is_last: bool) -> None:
        """Send stats if changed and due. is_last: nothing changes until the next request."""
        now_s = self._clock()
        if not is_last and now_s - self._last_report_s < REPORT_S:
            return
        self._last_report_s = now_s
        stats = replace(
            self._read_stats(),
            tokens_per_second=round(self._throughput.read(), 1),
            prompt_tokens_per_second=round(self._prompt_throughput.read(), 1),
        )
        if stats != self._sent:
            self._send(stats)
            self._sent = stats


@dataclass(slots=True)
class SpillPace:
    """When the next block may be queued for the disk."""

    clock: Callable[[], float] = time.monotonic
    _next_busy_s: float = 0.0  # earliest time while requests run
    _next_idle_s: float = 0.0

    def note_work(self) -> None:
        self._next_idle_s = self.clock() + SPILL_PAUSE_S

    def wait_s(self, *, is_idle: bool) -> float:
        """Return the seconds until the next block; 0 or less if it is due."""
        return (self._next_idle_s if is_idle else self._next_busy_s) - self.clock()

    def timed(self, spill: Callable[[], float | None]) -> float | None:
        """Queue a block; return what `spill` returns."""
        began_s = self.clock()
        spill_in_s = spill()
        ended_s = self.clock()
        self._next_busy_s = ended_s + (ended_s - began_s) / SPILL_SHARE
        return spill_in_s


def serve(front_end: FramePort, context: WorkerContext) -> None:
    """Handle frames, step the batch, and copy prefixes to disk and back until `Unload`.

    Raises `FrontEndGoneError`.
    """
    scheduler, reporter = context.scheduler, _reporter(front_end, context)
    front_end.watch(context.grammar_queue.wakeup)
    pace = SpillPace(context.clock)
    copy_in_s: float | None = 0
    while True:
        relieve_in_s = context.relieve()
        reporter.send_stats(is_last=scheduler.is_idle and copy_in_s is None)
        frames = front_end.receive(_wait_s(context, _sooner(copy_in_s, relieve_in_s)))
        if scheduler.is_idle:
            frames += receive_followers(front_end.receive, frames, context.clock)
        events = [event for frame in frames for event in _handle(frame, context)]
        if Unload() in frames:
            # After the cancellations that came with it, which release what they have processed.
            spill_rest(context.spill, clock=context.clock)
            return
        reporter.send_events(events + _submit_ready(context))
        if not scheduler.is_idle:
            reporter.send_events(scheduler.admit())
            reporter.send_step(scheduler)
            pace.note_work()
        if (wait_s := pace.wait_s(is_idle=scheduler.is_idle)) > 0:
            copy_in_s = wait_s
            continue
        copy_in_s = pace.timed(context.spill)
        if scheduler.is_idle:
            copy_in_s = _sooner(copy_in_s, context.preload())


def _reporter(front_end: FramePort, context: WorkerContext) -> Reporter:
    return Reporter(front_end.send, context.read_stats, pixels=context.pixels)


def _wait_s(context: WorkerContext, idle_s: float | None) -> float | None:
    """Return how long the worker may wait for frames. idle_s: until it has other work."""
    return idle_s if context.scheduler.is_idle else context.pixels.wait_s


def receive_followers(
    receive: Callable[[float], list[Frame]],
    frames: list[Frame],
    clock: Callable[[], float] = time.monotonic,
) -> list[Frame]:
    """Receive the requests that are about to follow those in `frames`, within `FOLLOWERS_S`.

    Their prompts can then be processed together.
    """
    received: list[Frame] = []
    end_s = clock() + FOLLOWERS_S
    while _has_followers([*frames, *received]) and (left_s := end_s - clock()) > 0:
        received += receive(left_s)
    return received


def _has_followers(frames: list[Frame]) -> bool:
    submits = [frame for frame in frames if isinstance(frame, Submit)]
    return bool(submits) and submits[-1].followers > 0


def spill_rest(
    spill: Callable[[], float | None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Queue what is not on disk yet, for at most `LAST_SPILL_S`.

    It is lost while writing is paused.
    """
    until_s = clock() + LAST_SPILL_S
    while (pause_s := spill()) is not None and clock() + pause_s < until_s:
        sleep(pause_s)


def _sooner(left_s: float | None, right_s: float | None) -> float | None:
    return min((each for each in (left_s, right_s) if each is not None), default=None)


def _handle(frame: Frame, context: WorkerContext) -> list[KeyedEvent]:
    match frame:
        case Submit(key, Generation(grammar=Grammar()) as generation):
            failed = context.grammar_queue.add(key, generation)
            return [(key, failed)] if failed else []
        case Submit(key, generation):
            return [context.scheduler.submit(key, generation)]
        case Cancel(key):
            context.grammar_queue.cancel(key)
            context.scheduler.cancel(key)
            return []
        case Pixels(picture_id, content, is_last):
            context.pixels.add(picture_id, content, is_last=is_last)
            return []
        case Unload():
            return []
        case Load() | Loaded() | LoadFailed() | Begun() | Preloaded():
            raise ValueError(f"unexpected {type(frame).__name__} frame: the model is loaded")
        case Wanted() | Step() | EngineStats():
            raise ValueError(f"unexpected {type(frame).__name__} frame: the model is loaded")
        case _:
            assert_never(frame)


def _submit_ready(context: WorkerContext) -> list[KeyedEvent]:
    """Submit the requests whose grammar has compiled."""
    return [
        (key, ready) if isinstance(ready, Failed) else context.scheduler.submit(key, ready)
        for key, ready in context.grammar_queue.take_ready()
    ]


def _receive_load(front_end: FramePort) -> Load:
    frames: list[Frame] = []
    while not frames:
        frames = front_end.receive(None)
    (load,) = frames
    assert isinstance(load, Load)
    return load


def _load(front_end: FramePort, load: Load, make_parts: MakeParts) -> WorkerContext | None:
    """Load the model; report and return None if it does not load."""
    started = time.monotonic()
    try:
        front_end.announce("loading MLX", IMPORTING_S)
        from pensieve.engine.model.mlx_import import import_mlx_lm

        import_mlx_lm()
        from pensieve.engine.worker.build import build_engine
        from pensieve.engine.worker.parts import ALONE

        parts = make_parts() or ALONE
        context = build_engine(load, front_end.announce, front_end.send, parts)
    except FrontEndGoneError:
        raise
    # Every error is reported to the front end. One module of mlx-lm calls sys.exit.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        if is_debug_enabled():
            _log.warning("the model did not load, the worker exits", exc_info=error)
        front_end.send(LoadFailed(reason_of(error)))
        return None
    # What is loaded by now is never freed: keep the collector from scanning it during answers.
    gc.collect()
    gc.freeze()
    # In this order, so that an engine that is ready has its stats.
    front_end.send(context.read_stats())
    load_s = time.monotonic() - started
    front_end.send(Loaded(load_s, context.context_tokens, context.speculation, context.sees))
    return context


def reason_of(error: BaseException) -> str:
    """Return why a model did not load, in one line of about `MAX_REASON_CHARS` at most."""
    line = " ".join(str(error).split())
    if len(line) > MAX_REASON_CHARS:
        line = line[:MAX_REASON_CHARS].rstrip() + " …"
    # What mlx-lm raises on purpose is a ValueError with a sentence.
    is_sentence = isinstance(error, ValueError) and " " in line
    return line if is_sentence else f"{type(error).__name__}: {line}"


def main(socket_fd: int) -> NoReturn:
    """Run the worker on this socket, then end the process."""
    run(FrontEnd(socket.socket(fileno=socket_fd)))


def run(
    front_end: FramePort,
    localize: Callable[[Load], Load] = lambda load: load,
    make_parts: MakeParts = lambda: None,
) -> NoReturn:
    """Run the worker, then end the process.

    localize: gives the folders of this machine. make_parts: called once MLX is imported.
    """
    # Ctrl-C in a terminal reaches the whole process group; the front end decides when this worker
    # ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_quietly_on_abort()
    exit_code = 0
    try:
        _run(front_end, localize, make_parts)
    except FrontEndGoneError:
        pass
    except BaseException:  # noqa: BLE001 - logged here because os._exit prints nothing
        _log.exception("unexpected error, the engine worker exits")
        exit_code = 1
    # MLX's threads can abort an ordinary interpreter exit.
    os._exit(exit_code)


def end_quietly_on_abort() -> None:
    """Make abort(3) end the process with exit code 6 (SIGABRT), after its message is in the log.

    Metal's errors end in abort. By default macOS then shows "Python quit unexpectedly" and writes a
    crash report (from its documentation; the exit code is tested on Linux). A Python signal handler
    would never run, since abort does not return to the interpreter.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    # signal(2) passes the signal's number, which _exit(2) takes as the exit code.
    libc.signal(signal.SIGABRT, ctypes.cast(libc["_exit"], ctypes.c_void_p))


def _run(front_end: FramePort, localize: Callable[[Load], Load], make_parts: MakeParts) -> None:
    if (context := _load(front_end, localize(_receive_load(front_end)), make_parts)) is None:
        return
    try:
        serve(front_end, context)
    finally:
        context.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
