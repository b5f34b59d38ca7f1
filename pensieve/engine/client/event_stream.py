"""What the worker says about one generation, as the front end iterates over it."""

import asyncio

from pensieve.engine.generation import EngineEvent, Finished
from pensieve.engine.protocol import Failed
from pensieve.errors import EngineBusyError, EngineError, GrammarError, PensieveError


class EventStream:
    """The events of one generation; it ends after `Finished`. A wait for the next one can be cancelled and taken up again.

    Over asyncio's own queue: anyio's streams go round the event loop once more for every event.
    """

    def __init__(self) -> None:
        self._said = asyncio.Queue[EngineEvent | Failed | PensieveError]()
        self._first: EngineEvent | None = None
        self._has_finished = False

    def put(self, event: EngineEvent | Failed) -> None:
        """Append an event."""
        self._said.put_nowait(event)

    def fail(self, error: PensieveError) -> None:
        """End the stream with an error, after what has been put."""
        self._said.put_nowait(error)

    async def wait_started(self) -> None:
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
        """Raises `PensieveError` where the worker gives the generation up, or is gone."""
        event = await self._said.get()
        if isinstance(event, PensieveError):
            raise event
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
