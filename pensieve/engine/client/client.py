"""The front end's side of the engine: runs and supervises the worker, submits and cancels requests.

`running_engine` yields an `Engine` at once, while the worker loads its model. When a worker dies,
its open requests fail with `WorkerDiedError` and another one is started after a growing pause; the
front end keeps running. An idle worker is unloaded: its process ends, and the next request starts
another one and waits for it. Runs on the front end's event loop and never imports MLX.
"""

import logging
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import NoReturn

import anyio
from anyio.abc import Process

from pensieve.engine.client.launch import (
    OpenWorker,
    WorkerSpec,
    describe_exit,
    end_worker,
    is_link_lost,
    open_worker,
)
from pensieve.engine.client.open_requests import OpenRequest, OpenRequests, WorkerHandle
from pensieve.engine.client.supervisor import (
    STOP_TIMEOUT_S,
    Death,
    HealthCheckPolicy,
    IdlePolicy,
    RestartPolicy,
)
from pensieve.engine.client.worker_connection import WorkerConnection
from pensieve.engine.generation import (
    EngineEvent,
    EngineHealth,
    EngineStats,
    Generation,
    SpeculationState,
    WorkTotals,
)
from pensieve.engine.protocol import (
    Begun,
    Frame,
    FromFrontEnd,
    Loaded,
    LoadFailed,
    Preloaded,
    Step,
    Unload,
    Wanted,
)
from pensieve.errors import EngineBusyError, EngineFailedError, HostError

__all__ = ["EngineClient", "IdlePolicy", "WorkerSpec", "running_engine"]

_log = logging.getLogger("pensieve.engine")

LOADING_RETRY_S = 3
PING_INTERVAL_S = (
    5.0  # to another machine's worker; it ends after silence (hosts/worker_process.py)
)


@asynccontextmanager
async def running_engine(
    spec: WorkerSpec,
    *,
    open_worker: OpenWorker = open_worker,
    health_checks: HealthCheckPolicy = HealthCheckPolicy(),  # noqa: B008 - a frozen value
    idle: IdlePolicy = IdlePolicy(),  # noqa: B008 - a frozen value
    stop_timeout_s: float = STOP_TIMEOUT_S,
) -> "AsyncGenerator[EngineClient]":
    """Run an engine while the block lasts; entering does not wait for the model.

    At its end the worker may write its prefixes to disk for `stop_timeout_s`.
    """
    client = EngineClient(spec, open_worker, health_checks, idle, stop_timeout_s)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.supervise)
            yield client
            tasks.cancel_scope.cancel()
    except ExceptionGroup as group:
        # Only one error can occur here: raise that instead of a group of one.
        raise group.exceptions[0] from None


class EngineClient:
    """Owns the worker process and the table of open requests. One per server."""

    def __init__(
        self,
        spec: WorkerSpec,
        open_worker: OpenWorker,
        health_checks: HealthCheckPolicy,
        idle: IdlePolicy,
        stop_timeout_s: float,
    ) -> None:
        self._spec = spec
        self._stop_timeout_s = stop_timeout_s
        self._health_checks = health_checks
        self._idle = idle
        self._open_worker = open_worker
        self._restarts = RestartPolicy()
        self._requests = OpenRequests()
        self._last_work_s = time.monotonic()
        self._ended_work = WorkTotals()  # of workers that have ended
        self._health = EngineHealth(
            "loading",
            "The engine worker is starting.",
            context_tokens=spec.planned_tokens,
            speculation=None if spec.has_speculation else SpeculationState("setting"),
        )

    @property
    def health(self) -> EngineHealth:
        requests = self._requests
        worker = requests.worker
        return replace(
            self._health,
            in_flight=len(requests),
            poison_prompts=requests.poison.count,
            totals=self._ended_work + worker.work if worker else self._ended_work,
        )

    @contextmanager
    def expect(self) -> Generator[None]:
        self._requests.expected += 1
        try:
            yield
        finally:
            self._requests.expected -= 1

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncGenerator[AsyncIterator[EngineEvent]]:
        """Run one generation; leaving the block cancels it. See `Engine.generate`."""
        if refusal := self._requests.poison.refusal(generation.prompt_tokens):
            raise refusal
        request = OpenRequest(generation)
        key = self._accept(request)
        try:
            await request.events.wait_started()
            yield request.events
            self._note_block_end(request)
        finally:
            self._last_work_s = time.monotonic()
            self._requests.remove(key)

    def reload(self) -> None:
        """Replace a worker that has no open requests, or start a failed engine again.

        The state is `loading` meanwhile.
        """
        worker, state = self._requests.worker, self._health.state
        if state == "ready" and worker:
            worker.is_unloading = True
            worker.connection.send(Unload())
        elif state == "failed":
            self._restarts = RestartPolicy()
        else:
            return
        self._health = replace(
            self._health, state="loading", detail="It is restarted.", is_model_at_fault=False
        )
        self._requests.wake.set()

    def _accept(self, request: OpenRequest) -> int:
        match self._health.state:
            case "ready":
                return self._requests.submit(request)
            case "asleep":
                return self._requests.wait_for_worker(request)
            case "loading":
                raise EngineBusyError(
                    f"The model is still loading. {self._health.detail}",
                    retry_after_s=LOADING_RETRY_S,
                )
            case "failed":
                raise EngineFailedError(self._health.detail)

    def _note_block_end(self, request: OpenRequest) -> None:
        # The caller has read the answer as far as it needed: the prompt is not lethal.
        if request.phase == "decode":
            self._requests.poison.note_finished(request.prompt)
            self._restarts.note_finished()

    async def supervise(self) -> None:
        """Keep a worker running until cancelled, while the engine is neither idle nor failed."""
        while True:
            self._requests.wake = anyio.Event()
            death = await self._run_worker()
            if death and self._health.state != "failed":
                pause_s = self._restarts.pause_after_death(time.monotonic(), death)
                self._note_death(death, pause_s)
                if pause_s is not None:
                    await anyio.sleep(pause_s)
                    continue
            if self._health.state == "asleep":
                _log.info("engine worker unloaded while idle: %s", self._health.detail)
            await self._requests.wake.wait()
            wakes = self._health.wakes + (self._health.state == "asleep")
            self._health = replace(self._health, detail="the model is loading", wakes=wakes)

    def _note_death(self, death: Death, pause_s: float | None) -> None:
        if pause_s is None:
            self._fail(f"{death.message}, again and again: not started any more.")
            return
        _log.warning("%s; starting it again in %.1f s", death.message, pause_s)
        restarts = self._health.restarts_by_cause
        self._health = replace(
            self._health,
            state="loading",
            detail=f"{death.message}; loading again.",
            restarts_by_cause={**restarts, death.kind: restarts.get(death.kind, 0) + 1},
        )

    def _fail(self, detail: str) -> None:
        self._health = replace(self._health, state="failed", detail=detail)
        _log.error("the engine has failed: %s", detail)
        self._requests.fail_waiting(detail)

    async def _run_worker(self) -> Death | None:
        """Run one worker to its end; return None if it was unloaded."""
        try:
            process, connection = await self._open_worker(self._spec)
        except OSError as error:
            message = f"The engine worker cannot be started ({error})"
            return Death(message, "starting", "starting")
        except HostError as error:
            return Death(error.message, kind="host")
        self._health = replace(self._health, worker_pid=process.pid)
        try:
            return await self._serve_worker(process, connection)
        finally:
            await end_worker(process)

    async def _serve_worker(self, process: Process, connection: socket.socket) -> Death | None:
        worker = self._requests.worker = WorkerHandle(
            await WorkerConnection.over(connection, self._handle_frame)
        )
        try:
            await self._run_until_closed(worker, process)
            activity, ended = worker.activity, await describe_exit(process)
            worker.is_link_lost = is_link_lost(process, self._spec.host)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self._unload_at_stop(process, worker)
            raise
        finally:
            self._detach(worker)
        return worker.death(activity, ended, self._spec.host)

    async def _run_until_closed(self, worker: WorkerHandle, process: Process) -> None:
        """Have the model loaded, then run the health checks until the connection closes."""
        has_preload = not self._restarts.has_died_idle
        worker.connection.send(replace(self._spec.load_frame, has_preload=has_preload))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._check_health, process, worker)
            tasks.start_soon(worker.send_pictures)
            if self._spec.host:
                tasks.start_soon(worker.connection.ping, PING_INTERVAL_S)
            if self._idle.unload_s:
                tasks.start_soon(self._unload_when_idle, process, worker)
            await worker.connection.wait_closed()
            tasks.cancel_scope.cancel()

    async def _unload_when_idle(self, process: Process, worker: WorkerHandle) -> None:
        await self._wait_idle()
        worker.is_unloading = True
        detail = "the next request loads the model"
        sleeps = self._health.sleeps + 1
        self._health = replace(
            self._health, state="asleep", detail=detail, stats=None, sleeps=sleeps
        )
        worker.connection.send(Unload())
        await anyio.sleep(self._idle.timeout_s)
        _log.warning(
            "engine worker did not exit within %.0f s of unloading, killing it",
            self._idle.timeout_s,
        )
        process.kill()

    async def _unload_at_stop(self, process: Process, worker: WorkerHandle) -> None:
        """Let a loaded worker write its prefixes to disk. It is killed after that."""
        if not worker.has_loaded:
            return
        worker.connection.send(Unload())
        with anyio.move_on_after(self._stop_timeout_s):
            await process.wait()
            return
        _log.info(
            "engine worker did not exit within %g s of the stop, killing it: its last prefixes"
            " may be processed again",
            self._stop_timeout_s,
        )

    async def _wait_idle(self) -> None:
        """Wait until a loaded model has been idle for `unload_s`."""
        idle_s = 0.0
        while idle_s < self._idle.unload_s:
            await anyio.sleep(self._idle.unload_s - idle_s)
            is_idle = self._health.state == "ready" and not self._requests
            idle_s = time.monotonic() - self._last_work_s if is_idle else 0.0

    async def _check_health(self, process: Process, worker: WorkerHandle) -> None:
        """Kill a worker that is silent while it loads or while requests wait for it.

        Checks are counted, not seconds: after a sleep of the machine, or of this process, a worker
        is not taken for hung.
        """
        missed = 0
        while True:
            frames_before = worker.progress_frames
            await anyio.sleep(self._health_checks.interval_s)
            is_awaited = not worker.has_loaded or worker.is_unloading or bool(worker.open)
            is_silent = worker.progress_frames == frames_before
            missed = missed + 1 if is_awaited and is_silent else 0
            if missed >= self._max_missed(worker):
                work = worker.begun.work if worker.begun else "answering"
                silent_s = missed * self._health_checks.interval_s
                worker.fault = (
                    f"The engine worker hung: nothing came for {silent_s:.0f} s while {work}"
                )
                process.kill()
                return

    def _max_missed(self, worker: WorkerHandle) -> int:
        timeout_s = worker.begun.timeout_s if worker.begun else 0.0
        stats = self._health.stats
        resident_bytes = stats.weights_bytes + stats.kv_used_bytes if stats else 0
        return self._health_checks.max_missed_within(timeout_s, resident_bytes)

    def _handle_frame(self, frame: Frame) -> None:
        self._requests.note_frame(frame)
        match frame:
            case Step(events):
                self._requests.dispatch(events)
            case Begun(work):
                self._note_progress(work)
            case Loaded():
                self._note_loaded(frame)
            case Preloaded(prefixes, tokens, spent_s):
                _log.info(
                    "prompts of the last projects are back in memory: %d (%d tokens, %.1f s)",
                    prefixes,
                    tokens,
                    spent_s,
                )
            case EngineStats():
                self._note_stats(frame)
            case LoadFailed(message):
                self._fail(f"The model does not load: {message}")
                self._health = replace(self._health, is_model_at_fault=True)
            case Wanted():
                self._requests.want(frame)
            case _:
                self._refuse(frame)

    @staticmethod
    def _refuse(frame: FromFrontEnd) -> NoReturn:
        raise ValueError(f"unexpected {type(frame).__name__} frame from the engine worker")

    def _note_stats(self, stats: EngineStats) -> None:
        self._health = replace(self._health, stats=stats)
        if self._requests.worker:
            work = WorkTotals(stats.preempted, stats.grammar_s, stats.drafts)
            self._requests.worker.work = work

    def _note_progress(self, work: str) -> None:
        """Show the announced work in the health while the model loads."""
        if self._requests.worker and not self._requests.worker.has_loaded:
            self._health = replace(self._health, detail=f"{work[:1].upper()}{work[1:]}.")

    def _note_loaded(self, loaded: Loaded) -> None:
        assert self._requests.worker is not None
        tokens = loaded.context_tokens
        _log.info("the model is loaded (%.1f s); memory holds %d tokens", loaded.load_s, tokens)
        self._requests.worker.has_loaded = True
        self._last_work_s = time.monotonic()
        self._health = replace(
            self._health,
            state="ready",
            detail="",
            context_tokens=tokens,
            speculation=loaded.speculation,
            sees=loaded.sees,
        )
        self._requests.submit_waiting()

    def _detach(self, worker: WorkerHandle) -> None:
        state = "loading" if self._health.state == "ready" else self._health.state
        self._health = replace(self._health, state=state, worker_pid=None, stats=None)
        self._ended_work += worker.work
        self._requests.detach(worker)
