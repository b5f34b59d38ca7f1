"""The front end's side of the engine: starts the worker, watches it, hands generations in and events out.

Contract: `running_engine` yields an `Engine`; the worker loads its model meanwhile. A worker that dies fails the open
generations with `WorkerDiedError` and is started again with growing pauses; the front end lives on. Runs on the
front end's event loop and never imports MLX.
"""

import itertools
import logging
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import assert_never

import anyio
from anyio.abc import Process

from pensieve.engine.event_stream import EventStream
from pensieve.engine.generation import Engine, EngineEvent, EngineHealth, Figures, Generation
from pensieve.engine.launch import WorkerSpec, open_worker
from pensieve.engine.link import WorkerLink
from pensieve.engine.protocol import (
    Begun,
    Cancel,
    Frame,
    Load,
    Loaded,
    LoadFailed,
    Step,
    Submit,
    WorkerEvent,
)
from pensieve.engine.supervision import STARTING_S, RestartPolicy, WatchPolicy
from pensieve.errors import (
    EngineBusyError,
    EngineFailedError,
)

__all__ = ["EngineClient", "WorkerSpec", "running_engine"]

_log = logging.getLogger("pensieve.engine")

OpenWorker = Callable[[WorkerSpec], Awaitable[tuple[Process, socket.socket]]]
LOADING_RETRY_S = 3


@asynccontextmanager
async def running_engine(
    spec: WorkerSpec,
    *,
    open_worker: OpenWorker = open_worker,
    watch: WatchPolicy = WatchPolicy(),  # noqa: B008 - a frozen value
) -> AsyncGenerator[Engine]:
    """An engine for as long as the block lasts; entering does not wait for the model."""
    client = EngineClient(spec, open_worker, watch)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.supervise)
            yield client
            tasks.cancel_scope.cancel()
    except ExceptionGroup as group:
        # One thing goes wrong at a time here; whoever opened the block wants that, not a group of one.
        raise group.exceptions[0] from None


_STARTING = Begun("starting", STARTING_S)


@dataclass(slots=True)
class _Line:
    """To one worker."""

    link: WorkerLink
    open: dict[int, EventStream] = field(default_factory=dict[int, EventStream])  # by key
    heard: int = 0  # frames that show that the worker gets on; figures do not
    begun: Begun | None = _STARTING  # what the worker is at; None: a step
    fault: str = ""  # why the worker was ended, where we ended it


class EngineClient:
    """Owns the worker process and the table of open generations. One per server."""

    def __init__(self, spec: WorkerSpec, open_worker: OpenWorker, watch: WatchPolicy) -> None:
        self._spec = spec
        self._watch_policy = watch
        self._open_worker = open_worker
        self._keys = itertools.count(1)
        self._health = EngineHealth(
            "loading", "The engine worker is starting.", context_tokens=spec.planned_tokens
        )
        self._line: _Line | None = None

    @property
    def health(self) -> EngineHealth:
        """How the engine is at this moment."""
        return replace(self._health, in_flight=len(self._line.open) if self._line else 0)

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncGenerator[AsyncIterator[EngineEvent]]:
        """Run one generation; leaving the block cancels it. See `Engine.generate`."""
        line = self._ready_line()
        key = next(self._keys)
        events = line.open[key] = EventStream()
        try:
            line.link.send(Submit(key, generation))
            await events.begin()
            yield events
        finally:
            if line.open.pop(key, None) is not None and line is self._line:
                line.link.send(Cancel(key))

    def _ready_line(self) -> _Line:
        match self._health.state:
            case "ready":
                assert self._line is not None
                return self._line
            case "loading":
                raise EngineBusyError(
                    f"The model is still loading. {self._health.detail}",
                    retry_after_s=LOADING_RETRY_S,
                )
            case "failed":
                raise EngineFailedError(self._health.detail)

    async def supervise(self) -> None:
        """Keep a worker running until cancelled, or until starting again is pointless."""
        policy = RestartPolicy()
        while True:
            ended = await self._run_worker()
            if self.health.state == "failed":
                break
            pause_s = policy.pause_after_death(time.monotonic())
            self._note_death(ended, pause_s)
            if pause_s is None:
                break
            await anyio.sleep(pause_s)
        _log.error("the engine has failed: %s", self._health.detail)

    def _note_death(self, ended: str, pause_s: float | None) -> None:
        restarts, context_tokens = self._health.restarts + 1, self._health.context_tokens
        if pause_s is None:
            detail = f"{ended}, again and again: not started any more."
            self._health = EngineHealth(
                "failed", detail, restarts=restarts - 1, context_tokens=context_tokens
            )
        else:
            _log.warning("%s; starting it again in %.1f s", ended, pause_s)
            detail = f"{ended}; loading again."
            self._health = EngineHealth(
                "loading", detail, restarts=restarts, context_tokens=context_tokens
            )

    async def _run_worker(self) -> str:
        """One worker's life; how it ended, in words."""
        try:
            process, connection = await self._open_worker(self._spec)
        except OSError as error:
            return f"The engine worker cannot be started ({error})"
        try:
            fault = await self._talk_to(process, connection)
            return fault or f"The engine worker ended by itself ({await _describe_exit(process)})"
        finally:
            self._lose_line()
            await _end(process)

    async def _talk_to(self, process: Process, connection: socket.socket) -> str:
        """Load the model, then carry frames until the worker's end of the connection closes. Return
        why we ended it, if so.
        """
        self._health = replace(self._health, worker_pid=process.pid)
        link = await WorkerLink.over(connection, self._take)
        line = self._line = _Line(link)
        link.send(_load_frame(self._spec))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, process, line)
            await link.wait_closed()
            tasks.cancel_scope.cancel()
        return line.fault

    async def _watch(self, process: Process, line: _Line) -> None:
        """End a worker that says nothing while it loads, or while somebody waits for it. Looks are
        counted, not seconds: a machine that slept, or a stopped process, does not look like a
        wedged worker.
        """
        silent_looks = 0
        while True:
            heard = line.heard
            await anyio.sleep(self._watch_policy.look_s)
            is_awaited = self._health.state == "loading" or bool(line.open)
            silent_looks = silent_looks + 1 if is_awaited and line.heard == heard else 0
            if silent_looks >= self._silent_looks(line):
                work = line.begun.work if line.begun else "answering"
                silent_s = silent_looks * self._watch_policy.look_s
                line.fault = (
                    f"The engine worker hung: nothing came for {silent_s:.0f} s while {work}"
                )
                process.kill()
                return

    def _silent_looks(self, line: _Line) -> int:
        """How many silent looks are too many now."""
        patience_s = line.begun.patience_s if line.begun else 0.0
        figures = self._health.figures
        held_bytes = figures.weights_bytes + figures.kv_used_bytes if figures else 0
        return self._watch_policy.looks(patience_s, held_bytes)

    def _take(self, frame: Frame) -> None:
        self._note_life(frame)
        match frame:
            case Step(events):
                self._dispatch(events)
            case Begun(work):
                self._note_progress(work)
            case Loaded(load_s, context_tokens):
                _log.info(
                    "the model is loaded (%.1f s); memory holds %d tokens", load_s, context_tokens
                )
                self._health = replace(
                    self._health, state="ready", detail="", context_tokens=context_tokens
                )
            case Figures():
                self._health = replace(self._health, figures=frame)
            case LoadFailed(message):
                detail = f"The model does not load: {message}"
                self._health = replace(self._health, state="failed", detail=detail)
            case Load() | Submit() | Cancel():
                raise ValueError(f"{type(frame).__name__} is not a worker's word")
            case _:
                assert_never(frame)

    def _note_life(self, frame: Frame) -> None:
        if self._line is None or isinstance(frame, Figures):
            return
        self._line.heard += 1
        self._line.begun = frame if isinstance(frame, Begun) else None

    def _note_progress(self, work: str) -> None:
        """Show what a worker is at while it loads."""
        if self._health.state == "loading":
            self._health = replace(self._health, detail=f"{work[:1].upper()}{work[1:]}.")

    def _dispatch(self, keyed: Sequence[tuple[int, WorkerEvent]]) -> None:
        """Hand events to their generations; one that was cancelled meanwhile has none."""
        if self._line is None:
            return
        for key, event in keyed:
            if events := self._line.open.get(key):
                events.put(event)

    def _lose_line(self) -> None:
        line, self._line = self._line, None
        if self._health.state == "ready":
            self._health = replace(self._health, state="loading", worker_pid=None, figures=None)
        if line is None:
            return
        line.link.close()
        for events in line.open.values():
            events.break_off()
        line.open.clear()


def _load_frame(spec: WorkerSpec) -> Load:
    prefix_folder = str(spec.prefix_folder) if spec.prefix_folder else None
    return Load(str(spec.model_folder), spec.device, prefix_folder, spec.allowance)


async def _describe_exit(process: Process) -> str:
    """A worker that closed its socket is about to end; one that does not is ended."""
    with anyio.move_on_after(5):
        await process.wait()
    if process.returncode is None:
        return "it closed its connection"
    code = process.returncode
    return f"signal {-code}" if code < 0 else f"exit code {code}"


async def _end(process: Process) -> None:
    """No worker outlives its line, also when the server is being cancelled."""
    if process.returncode is None:
        process.kill()
    with anyio.CancelScope(shield=True):
        await process.aclose()
