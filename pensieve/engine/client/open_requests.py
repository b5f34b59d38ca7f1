"""The front end's table of open requests: sent to a worker, or waiting for one to start."""

import asyncio
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import anyio

from pensieve.engine.client.event_stream import EventStream
from pensieve.engine.client.lethal_prompts import LethalPrompts, Phase, PromptInProgress
from pensieve.engine.client.supervisor import STARTING_S, Death
from pensieve.engine.client.worker_connection import WorkerConnection
from pensieve.engine.generation import (
    Admitted,
    Drafted,
    EngineStats,
    Finished,
    Generation,
    Prefilled,
    Requeued,
    Started,
    Token,
    WorkTotals,
)
from pensieve.engine.protocol import (
    PIXELS_BYTES,
    Begun,
    Cancel,
    Failed,
    Frame,
    Pixels,
    Submit,
    Wanted,
    WorkerEvent,
)
from pensieve.errors import EngineFailedError, PensieveError, WorkerDiedError

_log = logging.getLogger("pensieve.engine")

_STARTING = Begun("starting", STARTING_S)


@dataclass(slots=True)
class OpenRequest:
    generation: Generation
    events: EventStream = field(default_factory=EventStream)
    phase: Phase | None = None  # None: in the worker's queue
    done_tokens: int = 0  # of the prompt, processed so far

    @property
    def prompt(self) -> Sequence[int]:
        return self.generation.prompt_tokens

    def handle(self, event: WorkerEvent) -> None:
        """Record the phase and pass the event on."""
        match event:
            case Admitted():
                self.phase = "prefill"
            case Requeued():
                self.phase = None
            case Token():
                self.phase = "decode"
            case Started(cached_tokens):
                self.done_tokens = cached_tokens
            case Prefilled(prompt_tokens):
                self.done_tokens = prompt_tokens
                if prompt_tokens >= len(self.prompt):
                    self.phase = "decode"
            case Drafted() | Finished() | Failed():
                pass
        self.events.put(event)


@dataclass(slots=True)
class WorkerHandle:
    connection: WorkerConnection
    open: dict[int, OpenRequest] = field(default_factory=dict[int, OpenRequest])  # by key
    progress_frames: int = 0  # received so far, `EngineStats` not counted
    begun: Begun | None = _STARTING  # the work last announced; None: an ordinary step
    fault: str = ""  # why the front end killed the worker; empty if it did not
    has_loaded: bool = False
    is_unloading: bool = False
    is_link_lost: bool = False  # to another machine: no prompt is to blame
    work: WorkTotals = field(default_factory=WorkTotals)  # as last reported
    wanted: asyncio.Queue[Wanted] = field(default_factory=asyncio.Queue[Wanted])  # pictures

    @property
    def in_progress(self) -> list[PromptInProgress]:
        """The prompts that a crash now would count against."""
        return [
            PromptInProgress(request.prompt, request.phase, request.done_tokens)
            for request in self.open.values()
            if request.phase is not None
        ]

    @property
    def activity(self) -> Literal["loading"] | Phase | None:
        """What a crash now would interrupt; None while idle."""
        if not self.has_loaded:
            return "loading"
        phases = {work.phase for work in self.in_progress}
        return "prefill" if "prefill" in phases else "decode" if phases else None

    def death(
        self, activity: Literal["loading"] | Phase | None, ended: str, host: str
    ) -> Death | None:
        """Return why it ended during `activity`, None if it was unloaded; `ended` says how."""
        if self.is_unloading:
            return None
        cause = f"{activity}, {ended}" if activity else None
        if self.fault:
            return Death(self.fault, cause, "hung")
        if self.is_link_lost:
            return Death(f"The connection to {host} was lost", kind="host")
        on_host = f" on {host}" if host else ""
        message = f"The engine worker{on_host} ended by itself ({ended})"
        return Death(message, cause, activity or "idle")

    def submit(
        self, key: int, request: OpenRequest, *, runs_alone: bool, followers: int = 0
    ) -> None:
        self.open[key] = request
        generation = replace(request.generation, runs_alone=runs_alone)
        self.connection.send(Submit(key, generation, followers))

    def cancel(self, key: int) -> None:
        """Cancel a request. Unknown keys are ignored: its worker may be gone."""
        if self.open.pop(key, None):
            self.connection.send(Cancel(key))

    def note_frame(self, frame: Frame) -> None:
        if not isinstance(frame, EngineStats):
            self.progress_frames += 1
            self.begun = frame if isinstance(frame, Begun) else None

    async def send_pictures(self) -> None:
        """Send what is wanted, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                tasks.start_soon(self._send_picture, await self.wanted.get())

    async def _send_picture(self, wanted: Wanted) -> None:
        """Send the pixels of a picture of an open request; fail it if there are none."""
        request = self.open.get(wanted.key)
        pictures = request.generation.pictures if request else ()
        source = next((one.pixels for one in pictures if one.id == wanted.picture_id), None)
        if request is None or source is None:
            return
        try:
            pixels = await source()
        # Whatever goes wrong with one request's picture must not end the worker.
        except Exception as error:  # noqa: BLE001
            _log.warning("a picture could not be sent to the engine: %s", type(error).__name__)
            is_known = isinstance(error, PensieveError)
            request.events.fail(error if is_known else EngineFailedError("A picture is not there."))
            self.cancel(wanted.key)
            return
        for start in range(0, len(pixels), PIXELS_BYTES):
            part = pixels[start : start + PIXELS_BYTES]
            is_last = start + PIXELS_BYTES >= len(pixels)
            self.connection.send(Pixels(wanted.picture_id, part, is_last))

    def dispatch(self, events: Sequence[tuple[int, WorkerEvent]]) -> None:
        """Pass events to their requests. Events of cancelled requests are dropped."""
        for key, event in events:
            if request := self.open.get(key):
                request.handle(event)


class OpenRequests:
    """Owns every open request and the memory of lethal prompts."""

    def __init__(self) -> None:
        self.worker: WorkerHandle | None = None
        self.poison = LethalPrompts()
        self.wake = anyio.Event()  # a request waits for a worker to start
        self.expected = 0  # generations that are being prepared
        self._waiting: dict[int, OpenRequest] = {}
        self._keys = itertools.count(1)

    def __len__(self) -> int:
        return len(self._waiting) + (len(self.worker.open) if self.worker else 0)

    def submit(self, request: OpenRequest) -> int:
        """Send a request to the worker; return its key."""
        key = next(self._keys)
        self._send(key, request)
        return key

    def wait_for_worker(self, request: OpenRequest) -> int:
        """Queue a request until a worker has started, and wake the engine; return its key."""
        key = next(self._keys)
        request.events.put(Started(0))
        self._waiting[key] = request
        self.wake.set()
        return key

    def dispatch(self, events: Sequence[tuple[int, WorkerEvent]]) -> None:
        """Pass events of the worker, if it has not been detached, to their requests."""
        if self.worker:
            self.worker.dispatch(events)

    def note_frame(self, frame: Frame) -> None:
        if self.worker:
            self.worker.note_frame(frame)

    def want(self, wanted: Wanted) -> None:
        """Have a picture of a request sent to the worker."""
        if self.worker:
            self.worker.wanted.put_nowait(wanted)

    def remove(self, key: int) -> None:
        """Cancel a request, sent or waiting."""
        self._waiting.pop(key, None)
        if self.worker:
            self.worker.cancel(key)

    def submit_waiting(self) -> None:
        """Send all waiting requests to the worker."""
        waiting, self._waiting = self._waiting, {}
        for key, request in waiting.items():
            self._send(key, request)

    def fail_waiting(self, detail: str) -> None:
        """Fail all waiting requests: no worker will start."""
        for request in self._waiting.values():
            request.events.fail(EngineFailedError(detail))
        self._waiting.clear()

    def detach(self, worker: WorkerHandle) -> None:
        """Fail the open requests of an ended worker; count its end against those in progress."""
        self.worker = None
        worker.connection.close()
        if not worker.is_link_lost:
            self.poison.note_death(worker.in_progress)
        for request in worker.open.values():
            request.events.fail(self._error_of_death(request.prompt))
        worker.open.clear()

    def _send(self, key: int, request: OpenRequest) -> None:
        assert self.worker is not None
        runs_alone = self.poison.is_suspect(request.prompt)
        self.worker.submit(key, request, runs_alone=runs_alone, followers=self.expected)

    def _error_of_death(self, prompt: Sequence[int]) -> PensieveError:
        if refusal := self.poison.refusal(prompt):
            _log.error(
                "a prompt of %d tokens keeps crashing the engine worker, refusing it from now on",
                len(prompt),
            )
            return refusal
        return WorkerDiedError(
            "The engine worker ended in the middle of this request and is being started again."
        )
