"""One request of a message batch to its result, however long the engine takes to be there. It knows no batch and no disk."""

from collections.abc import Awaitable, Callable

import anyio

from pensieve.api.base import new_id
from pensieve.api.batches import BatchResult, Errored, Succeeded
from pensieve.api.messages.message import Message
from pensieve.errors import EngineBusyError, EngineError, EngineFailedError, WorkerDiedError
from pensieve.server.errors import PASSING, error_envelope, let_go

# The JSON of a `BatchedRequest` to its answer; raises what `POST /v1/messages` would answer with.
AnswerCall = Callable[[bytes], Awaitable[Message]]

# One request may be what the engine dies of; those that were in its company get another chance.
MAX_DEATHS = 5


class RetryingCompleter:
    """Answers requests. An engine that is loading, full, failed or gone is asked again after `retry_s`."""

    def __init__(self, answer: AnswerCall, *, retry_s: float) -> None:
        self._answer = answer
        self._retry_s = retry_s

    async def result(self, params: bytes) -> BatchResult:
        """What became of one request. Never raises."""
        deaths = 0
        while True:
            try:
                return Succeeded(message=_as_batch(await self._answer(params)))
            except (EngineBusyError, EngineFailedError) as error:
                deaths += isinstance(error, WorkerDiedError)
                if deaths == MAX_DEATHS:
                    return _errored(
                        EngineError(f"The engine ended {deaths} times on this request.")
                    )
            except PASSING:
                raise
            except BaseException as error:  # noqa: BLE001 -- whatever it is, it is this request's result
                result = _errored(error)
                let_go(error)
                return result
            await anyio.sleep(self._retry_s)


def _as_batch(message: Message) -> Message:
    usage = message.usage.model_copy(update={"service_tier": "batch"})
    return message.model_copy(update={"usage": usage})


def _errored(error: BaseException) -> Errored:
    return Errored(error=error_envelope(error, new_id("req")))
