"""The front end's side of the engine: starts the worker, watches it, hands generations in and events out.

Contract: `running_engine` yields an `Engine`; the worker loads its model meanwhile. A worker that dies fails the open
generations with `WorkerDiedError` and is started again with growing pauses; the front end lives on.
A worker without work is unloaded: the process ends, and the next generation starts another one and
waits for it. Runs on the front end's event loop and never imports MLX.
"""

import logging
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import assert_never

import anyio
from anyio.abc import Process

from pensieve.engine.client.launch import WorkerSpec, describe_exit, end_worker, open_worker
from pensieve.engine.client.open_requests import OpenRequest, OpenRequests, WorkerHandle
from pensieve.engine.client.supervisor import Death, HealthCheckPolicy, IdlePolicy, RestartPolicy
from pensieve.engine.client.worker_connection import WorkerConnection
from pensieve.engine.generation import Engine, EngineEvent, EngineHealth, EngineStats, Generation
from pensieve.engine.protocol import (
    Begun,
    Cancel,
    Frame,
    Load,
    Loaded,
    LoadFailed,
    Step,
    Submit,
    Unload,
)
from pensieve.errors import EngineBusyError, EngineFailedError

__all__ = ["EngineClient", "IdlePolicy", "WorkerSpec", "running_engine"]

_log = logging.getLogger("pensieve.engine")

OpenWorker = Callable[[WorkerSpec], Awaitable[tuple[Process, socket.socket]]]
LOADING_RETRY_S = 3


@asynccontextmanager
async def running_engine(
    spec: WorkerSpec,
    *,
    open_worker: OpenWorker = open_worker,
    watch: HealthCheckPolicy = HealthCheckPolicy(),  # noqa: B008 - a frozen value
    idle: IdlePolicy = IdlePolicy(),  # noqa: B008 - a frozen value
) -> AsyncGenerator[Engine]:
    """An engine for as long as the block lasts; entering does not wait for the model."""
    client = EngineClient(spec, open_worker, watch, idle)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.supervise)
            yield client
            tasks.cancel_scope.cancel()
    except ExceptionGroup as group:
        # One thing goes wrong at a time here; whoever opened the block wants that, not a group of one.
        raise group.exceptions[0] from None


class EngineClient:
    """Owns the worker process and the table of open generations. One per server."""

    def __init__(
        self, spec: WorkerSpec, open_worker: OpenWorker, watch: HealthCheckPolicy, idle: IdlePolicy
    ) -> None:
        self._spec = spec
        self._watch_policy = watch
        self._idle_policy = idle
        self._open_worker = open_worker
        self._restarts = RestartPolicy()
        self._requests = OpenRequests()
        self._worked_s = time.monotonic()
        self._health = EngineHealth(
            "loading", "The engine worker is starting.", context_tokens=spec.planned_tokens
        )

    @property
    def health(self) -> EngineHealth:
        """How the engine is at this moment."""
        requests = self._requests
        return replace(self._health, in_flight=len(requests), poison_prompts=requests.poison.count)

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncGenerator[AsyncIterator[EngineEvent]]:
        """Run one generation; leaving the block cancels it. See `Engine.generate`."""
        if refusal := self._requests.poison.refusal(generation.prompt_tokens):
            raise refusal
        request = OpenRequest(generation)
        key = self._take_in(request)
        try:
            await request.events.wait_started()
            yield request.events
            self._note_left(request)
        finally:
            self._worked_s = time.monotonic()
            self._requests.remove(key)

    def _take_in(self, request: OpenRequest) -> int:
        match self._health.state:
            case "ready":
                return self._requests.submit(request)
            case "asleep":
                return self._requests.hold(request)
            case "loading":
                raise EngineBusyError(
                    f"The model is still loading. {self._health.detail}",
                    retry_after_s=LOADING_RETRY_S,
                )
            case "failed":
                raise EngineFailedError(self._health.detail)

    def _note_left(self, request: OpenRequest) -> None:
        """Its answer was all that was wanted of it."""
        if request.phase == "decode":
            self._requests.poison.note_finished(request.prompt)
            self._restarts.note_finished()

    async def supervise(self) -> None:
        """Keep a worker running until cancelled, or until starting again is pointless."""
        while True:
            death = await self._run_worker()
            if self._health.state == "failed":
                break
            if death is None:
                _log.info("the engine sleeps: %s", self._health.detail)
                await self._requests.wake.wait()
                self._health = replace(self._health, detail="it wakes up, the model is loading")
                continue
            pause_s = self._restarts.pause_after_death(time.monotonic(), death)
            self._note_death(death, pause_s)
            if pause_s is None:
                break
            await anyio.sleep(pause_s)
        _log.error("the engine has failed: %s", self._health.detail)

    def _note_death(self, death: Death, pause_s: float | None) -> None:
        if pause_s is None:
            self._fail(f"{death.message}, again and again: not started any more.")
            return
        _log.warning("%s; starting it again in %.1f s", death.message, pause_s)
        self._health = replace(
            self._health,
            state="loading",
            detail=f"{death.message}; loading again.",
            restarts=self._health.restarts + 1,
        )

    def _fail(self, detail: str) -> None:
        self._health = replace(self._health, state="failed", detail=detail)
        self._requests.fail_waiting(detail)

    async def _run_worker(self) -> Death | None:
        """Run one worker to its end; None where it was unloaded."""
        try:
            process, connection = await self._open_worker(self._spec)
        except OSError as error:
            return Death(f"The engine worker cannot be started ({error})", "starting")
        self._health = replace(self._health, worker_pid=process.pid)
        try:
            return await self._talk_to(process, connection)
        finally:
            await end_worker(process)

    async def _talk_to(self, process: Process, connection: socket.socket) -> Death | None:
        line = self._requests.line = WorkerHandle(
            await WorkerConnection.over(connection, self._take)
        )
        try:
            await self._talk_over(line, process)
            activity, ended = line.activity, await describe_exit(process)
        finally:
            self._lose(line)
        if line.is_unloading:
            return None
        message = line.fault or f"The engine worker ended by itself ({ended})"
        return Death(message, f"{activity}, {ended}" if activity else None)

    async def _talk_over(self, line: WorkerHandle, process: Process) -> None:
        """Load the model, then carry frames until the worker's end of the connection closes."""
        line.link.send(self._spec.load_frame)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, process, line)
            if self._idle_policy.unload_s:
                tasks.start_soon(self._unload_when_idle, process, line)
            await line.link.wait_closed()
            tasks.cancel_scope.cancel()

    async def _unload_when_idle(self, process: Process, line: WorkerHandle) -> None:
        await self._until_idle()
        line.is_unloading = True
        self._requests.wake = anyio.Event()
        detail = "the next request loads the model"
        self._health = replace(self._health, state="asleep", detail=detail, figures=None)
        line.link.send(Unload())
        await anyio.sleep(self._idle_policy.timeout_s)
        _log.warning("the engine worker does not end: it is ended")
        process.kill()

    async def _until_idle(self) -> None:
        """Return once the model was loaded and without work for so long."""
        idle_s = 0.0
        while idle_s < self._idle_policy.unload_s:
            await anyio.sleep(self._idle_policy.unload_s - idle_s)
            is_idle = self._health.state == "ready" and not self._requests
            idle_s = time.monotonic() - self._worked_s if is_idle else 0.0

    async def _watch(self, process: Process, line: WorkerHandle) -> None:
        """End a worker that says nothing while it loads, or while somebody waits for it. Looks are
        counted, not seconds: a machine that slept, or a stopped process, does not look like a
        wedged worker.
        """
        silent_looks = 0
        while True:
            heard = line.heard
            await anyio.sleep(self._watch_policy.interval_s)
            is_awaited = not line.has_loaded or bool(line.open)
            silent_looks = silent_looks + 1 if is_awaited and line.heard == heard else 0
            if silent_looks >= self._silent_looks(line):
                work = line.begun.work if line.begun else "answering"
                silent_s = silent_looks * self._watch_policy.interval_s
                line.fault = (
                    f"The engine worker hung: nothing came for {silent_s:.0f} s while {work}"
                )
                process.kill()
                return

    def _silent_looks(self, line: WorkerHandle) -> int:
        """How many silent looks are too many now."""
        patience_s = line.begun.patience_s if line.begun else 0.0
        figures = self._health.figures
        held_bytes = figures.weights_bytes + figures.kv_used_bytes if figures else 0
        return self._watch_policy.max_missed_within(patience_s, held_bytes)

    def _take(self, frame: Frame) -> None:
        self._note_life(frame)
        match frame:
            case Step(events):
                if self._requests.line:
                    self._requests.line.take(events)
            case Begun(work):
                self._note_progress(work)
            case Loaded():
                self._begin(frame)
            case EngineStats():
                self._health = replace(self._health, figures=frame)
            case LoadFailed(message):
                self._fail(f"The model does not load: {message}")
                self._health = replace(self._health, is_model_at_fault=True)
            case Load() | Submit() | Cancel() | Unload():
                raise ValueError(f"{type(frame).__name__} is not a worker's word")
            case _:
                assert_never(frame)

    def _note_life(self, frame: Frame) -> None:
        line = self._requests.line
        if line is None or isinstance(frame, EngineStats):
            return
        line.heard += 1
        line.begun = frame if isinstance(frame, Begun) else None

    def _note_progress(self, work: str) -> None:
        """Show what a worker is at while it loads."""
        if self._requests.line and not self._requests.line.has_loaded:
            self._health = replace(self._health, detail=f"{work[:1].upper()}{work[1:]}.")

    def _begin(self, loaded: Loaded) -> None:
        assert self._requests.line is not None
        tokens = loaded.context_tokens
        _log.info("the model is loaded (%.1f s); memory holds %d tokens", loaded.load_s, tokens)
        self._requests.line.has_loaded = True
        self._worked_s = time.monotonic()
        self._health = replace(self._health, state="ready", detail="", context_tokens=tokens)
        self._requests.submit_waiting()

    def _lose(self, line: WorkerHandle) -> None:
        state = "loading" if self._health.state == "ready" else self._health.state
        self._health = replace(self._health, state=state, worker_pid=None, figures=None)
        self._requests.lose(line)
