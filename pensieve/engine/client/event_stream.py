"""One generation's events from the worker, as an async iterator for the front end."""

import asyncio

from pensieve.engine.generation import EngineEvent, Finished
from pensieve.engine.protocol import Failed
from pensieve.errors import EngineBusyError, EngineError, GrammarError, PensieveError


class EventStream:
    """Ends after `Finished`. A cancelled wait for the next event loses none.

    Uses asyncio's own queue: anyio's streams cost one more turn of the event loop for each event.
    """

    def __init__(self) -> None:
        self._queue = asyncio.Queue[EngineEvent | Failed | PensieveError]()
        self._first: EngineEvent | None = None
        self._has_finished = False

    def put(self, event: EngineEvent | Failed) -> None:
        self._queue.put_nowait(event)

    def fail(self, error: PensieveError) -> None:
        """End the stream with an error, after the events that are queued."""
        self._queue.put_nowait(error)

    async def wait_started(self) -> None:
        """Wait for the first event without consuming it.

        Raises `EngineError` if the generation is refused.
        """
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
        """Raises `PensieveError` if the generation failed or the worker died."""
        event = await self._queue.get()
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
