"""The open generations as the front end sees them: at one worker, or waiting for one that wakes."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import anyio

from pensieve.engine.client.event_stream import EventStream
from pensieve.engine.client.lethal_prompts import LethalPrompts, Phase, PromptInProgress
from pensieve.engine.client.supervisor import STARTING_S
from pensieve.engine.client.worker_connection import WorkerConnection
from pensieve.engine.generation import Finished, Generation, Prefilled, Started, Token
from pensieve.engine.protocol import Admitted, Begun, Cancel, Failed, Submit, WorkerEvent
from pensieve.errors import EngineFailedError, PensieveError, WorkerDiedError

_log = logging.getLogger("pensieve.engine")

_STARTING = Begun("starting", STARTING_S)


@dataclass(slots=True)
class OpenRequest:
    """One generation and its events. phase None: it waits in the worker's queue."""

    generation: Generation
    events: EventStream = field(default_factory=EventStream)
    phase: Phase | None = None
    done_tokens: int = 0

    @property
    def prompt(self) -> Sequence[int]:
        """The tokens that it begins with."""
        return self.generation.prompt_tokens

    def take(self, event: WorkerEvent) -> None:
        """Note how far the worker is, and hand the event on."""
        match event:
            case Admitted():
                self.phase = "prefill"
                return
            case Token():
                self.phase = "decode"
            case Started(cached_tokens):
                self.done_tokens = cached_tokens
            case Prefilled(prompt_tokens):
                self.done_tokens = prompt_tokens
                if prompt_tokens >= len(self.prompt):
                    self.phase = "decode"
            case Finished() | Failed():
                pass
        self.events.put(event)


@dataclass(slots=True)
class WorkerHandle:
    """To one worker. open: the generations that run there, by key."""

    link: WorkerConnection
    open: dict[int, OpenRequest] = field(default_factory=dict[int, OpenRequest])
    heard: int = 0  # frames that show that the worker gets on; figures do not
    begun: Begun | None = _STARTING  # what the worker is at; None: a step
    fault: str = ""  # why the worker was ended, where we ended it
    has_loaded: bool = False
    is_unloading: bool = False

    @property
    def in_work(self) -> list[PromptInProgress]:
        """What a death of the worker counts against."""
        return [
            PromptInProgress(request.prompt, request.phase, request.done_tokens)
            for request in self.open.values()
            if request.phase is not None
        ]

    @property
    def activity(self) -> str | None:
        """What a death interrupts; None where there is nothing to do."""
        if not self.has_loaded:
            return "loading"
        phases = {work.phase for work in self.in_work}
        return next((phase for phase in ("prefill", "decode") if phase in phases), None)

    def submit(self, key: int, request: OpenRequest, *, runs_alone: bool) -> None:
        """Have the worker take a generation."""
        self.open[key] = request
        self.link.send(Submit(key, replace(request.generation, runs_alone=runs_alone)))

    def cancel(self, key: int) -> None:
        """Unknown keys are ignored: the worker that knew them may be gone."""
        if self.open.pop(key, None):
            self.link.send(Cancel(key))

    def take(self, keyed: Sequence[tuple[int, WorkerEvent]]) -> None:
        """Hand events to their generations; one that was cancelled meanwhile has none."""
        for key, event in keyed:
            if isinstance(event, Admitted):
                self._make_room()
            if request := self.open.get(key):
                request.take(event)

    def _make_room(self) -> None:
        """One prompt is processed at a time: where another one is let in, it waits again."""
        for request in self.open.values():
            if request.phase == "prefill":
                request.phase = None


class OpenRequests:
    """Owns every open generation, and remembers the prompts that workers died of."""

    def __init__(self) -> None:
        self.line: WorkerHandle | None = None
        self.poison = LethalPrompts()
        self.wake = anyio.Event()  # something waits for a worker
        self._waiting: dict[int, OpenRequest] = {}
        self._keys = itertools.count(1)

    def __len__(self) -> int:
        return len(self._waiting) + (len(self.line.open) if self.line else 0)

    def submit(self, request: OpenRequest) -> int:
        """Hand a generation to the worker; return its key."""
        key = next(self._keys)
        self._send(key, request)
        return key

    def hold(self, request: OpenRequest) -> int:
        """Begin a generation that waits for a worker, and have one wake; return its key."""
        key = next(self._keys)
        request.events.put(Started(0))
        self._waiting[key] = request
        self.wake.set()
        return key

    def remove(self, key: int) -> None:
        """Cancel a generation, wherever it is."""
        self._waiting.pop(key, None)
        if self.line:
            self.line.cancel(key)

    def submit_waiting(self) -> None:
        """Hand everything that waits to the worker."""
        waiting, self._waiting = self._waiting, {}
        for key, request in waiting.items():
            self._send(key, request)

    def fail_waiting(self, detail: str) -> None:
        """No worker will come."""
        for request in self._waiting.values():
            request.events.fail(EngineFailedError(detail))
        self._waiting.clear()

    def lose(self, line: WorkerHandle) -> None:
        """The worker is gone: end what was open there, and count the death against what was in work."""
        self.line = None
        line.link.close()
        self.poison.note_death(line.in_work)
        for request in line.open.values():
            request.events.fail(self._error_of_death(request.prompt))
        line.open.clear()

    def _send(self, key: int, request: OpenRequest) -> None:
        assert self.line is not None
        self.line.submit(key, request, runs_alone=self.poison.is_suspect(request.prompt))

    def _error_of_death(self, prompt: Sequence[int]) -> PensieveError:
        if refusal := self.poison.refusal(prompt):
            _log.error("a prompt of %d tokens ends the engine worker: it is refused", len(prompt))
            return refusal
        return WorkerDiedError(
            "The engine worker ended in the middle of this request and is being started again."
        )
