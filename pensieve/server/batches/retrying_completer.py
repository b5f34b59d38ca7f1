"""Answers one request of a message batch, retrying while the engine is unavailable.

The batch worker calls it. It knows no batch and no disk.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from pensieve.api.base import new_id
from pensieve.api.batch_reading import params_of
from pensieve.api.batches import BatchResult, Errored, Succeeded
from pensieve.api.messages.message import Message
from pensieve.errors import EngineBusyError, EngineError, EngineFailedError, WorkerDiedError
from pensieve.logs import naming
from pensieve.server.activity.registry import Activity
from pensieve.server.errors import PASS_THROUGH, failure_of, release_frames
from pensieve.server.keys.limits import KeyLimiter
from pensieve.server.messages.completion import OnBegin
from pensieve.server.wire import ANTHROPIC, error_envelope
from pensieve.worker_threads import run_in_thread

# Takes the JSON of a `BatchedRequest` and the name of its key; raises what `POST /v1/messages`
# raises.
AnswerCall = Callable[[bytes, str, OnBegin], Awaitable[Message]]

_ROUTE = "/v1/messages/batches"

# A request may be what crashes the engine; others that ran at the same time are retried.
MAX_DEATHS = 5


class RetryingCompleter:
    """Retries after `retry_s` while the engine is loading, busy, failed or restarting."""

    def __init__(
        self, answer: AnswerCall, activity: Activity, limiter: KeyLimiter, *, retry_s: float
    ) -> None:
        self._answer = answer
        self._activity = activity
        self._limiter = limiter
        self._retry_s = retry_s

    async def result(self, entry: bytes, key_name: str) -> BatchResult:
        """Return the result of a request as it was sent, with the tokens counted as its key's.

        Never raises for the request itself: its error is the result.
        """
        deaths = 0
        while True:
            try:
                return await self._attempt(entry, key_name)
            except (EngineBusyError, EngineFailedError) as error:
                deaths += isinstance(error, WorkerDiedError)
                if deaths == MAX_DEATHS:
                    message = f"The engine ended {deaths} times on this request."
                    return _errored(EngineError(message), new_id("req"))
            await anyio.sleep(self._retry_s)

    async def _attempt(self, entry: bytes, key_name: str) -> BatchResult:
        """Raises `EngineBusyError` and `EngineFailedError`, after which another one may succeed."""
        record = self._activity.open(new_id("req"), _ROUTE, "batch", generates=True)
        record.key_name = key_name
        with naming(record.id):
            try:
                params = await run_in_thread(partial(params_of, entry))
                message = await self._answer(params, key_name, record.begin)
                record.status = 200
                return Succeeded(message=_with_batch_tier(message))
            except (EngineBusyError, EngineFailedError, *PASS_THROUGH):
                raise
            except BaseException as error:  # noqa: BLE001 -- any error is this request's result
                record.status = ANTHROPIC.error_status(type(error)).status
                result = _errored(error, record.id)
                release_frames(error)
                return result
            finally:
                self._activity.close(record)
                if key_name:
                    self._limiter.count_tokens(key_name, record)


def _with_batch_tier(message: Message) -> Message:
    usage = message.usage.model_copy(update={"service_tier": "batch"})
    return message.model_copy(update={"usage": usage})


def _errored(error: BaseException, request_id: str) -> Errored:
    return Errored(error=error_envelope(failure_of(error, request_id)))
