"""What the worker says about one generation, as the front end iterates over it."""

import asyncio

from pensieve.engine.generation import EngineEvent, Finished
from pensieve.engine.protocol import Failed, WorkerEvent
from pensieve.errors import EngineBusyError, EngineError, GrammarError, WorkerDiedError


class EventStream:
    """The events of one generation; it ends after `Finished`. A wait for the next one can be cancelled and taken up again.

    Over asyncio's own queue: anyio's streams go round the event loop once more for every event.
    """

    def __init__(self) -> None:
        # None: there is nobody any more who would say something.
        self._said = asyncio.Queue[WorkerEvent | None]()
        self._first: EngineEvent | None = None
        self._has_finished = False

    def put(self, event: WorkerEvent) -> None:
        """The worker's next word."""
        self._said.put_nowait(event)

    def break_off(self) -> None:
        """The worker is gone."""
        self._said.put_nowait(None)

    async def begin(self) -> None:
        """Wait for the first event, which stays the first. Raises `EngineError` where the generation is refused."""
        self._first = await self._next()

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> EngineEvent:
        if self._has_finished:
            raise StopAsyncIteration
        event, self._first = self._first, None
        if event is None:
            event = await self._next()
        self._has_finished = isinstance(event, Finished)
        return event

    async def _next(self) -> EngineEvent:
        """Raises `EngineError` where the worker gives the generation up, or is gone."""
        event = await self._said.get()
        if event is None:
            raise WorkerDiedError(
                "The engine worker ended in the middle of this request and is being started again."
            )
        if isinstance(event, Failed):
            raise _error_of(event)
        return event


def _error_of(failed: Failed) -> EngineError:
    match failed.kind:
        case "busy":
            return EngineBusyError(failed.message)
        case "grammar":
            return GrammarError(failed.message)
        case "engine":
            return EngineError(failed.message)
