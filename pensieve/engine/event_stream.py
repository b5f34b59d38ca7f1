"""What the worker says about one generation, as the front end iterates over it."""

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from pensieve.engine.generation import EngineEvent, Finished
from pensieve.engine.protocol import Failed, WorkerEvent
from pensieve.errors import EngineBusyError, EngineError, GrammarError, WorkerDiedError


class EventStream:
    """The events of one generation, the first of them already taken; it ends after `Finished`."""

    def __init__(self, first: EngineEvent, receive: MemoryObjectReceiveStream[WorkerEvent]) -> None:
        self._first: EngineEvent | None = first
        self._receive = receive
        self._has_finished = False

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> EngineEvent:
        if self._has_finished:
            raise StopAsyncIteration
        event, self._first = self._first, None
        if event is None:
            event = await next_event(self._receive)
        self._has_finished = isinstance(event, Finished)
        return event


async def next_event(receive: MemoryObjectReceiveStream[WorkerEvent]) -> EngineEvent:
    """The worker's next word on a generation. Raises `EngineError` where it gives the generation up, or is gone."""
    try:
        event = await receive.receive()
    except anyio.EndOfStream:
        raise WorkerDiedError(
            "The engine worker ended in the middle of this request and is being started again."
        ) from None
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
