"""Message threads: conversations stored between requests, so that a client sends only what is new.

The messages endpoint uses them. They live in memory under the id of the last answer, for a limited
time and within a number of bytes; the least recently used is evicted first. Best effort, as in the
API: after `thread_not_found` a client sends everything again. An answer can be continued once.
State changes only when the continuing request has its whole answer, so that a request that fails or
is canceled can be sent again.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from pensieve.api.messages.message import Message
from pensieve.api.messages.options import ContinueThread
from pensieve.api.messages.request import MessagesRequest, Turn
from pensieve.errors import (
    ThreadAlreadyContinuedError,
    ThreadFingerprintError,
    ThreadInFlightError,
    ThreadNotFoundError,
)
from pensieve.prompt.conversation.turns import without_last_space

# Anthropic's threads live five minutes; a local model may take longer over one tool call.
LIFETIME_S = 3600.0
MAX_BYTES = 256 * 1024 * 1024

# The cost of an entry without its conversation, also after it was continued under another id.
_ENTRY_BYTES = 512
# Fields that are the same in all requests of a thread.
_FIXED = ("model", "thinking", "output_config")


@dataclass(slots=True)
class _StoredThread:
    call: MessagesRequest | None  # None once it was continued
    size_bytes: int
    used_at: float
    owner: str = ""  # the name of its key
    is_in_flight: bool = False


@dataclass(frozen=True, slots=True)
class ThreadTurn:
    """One request, joined with the conversation of its thread if it has one."""

    call: MessagesRequest  # with the whole conversation
    stored_turns: int = 0  # how many of its turns come from the thread
    on_answer: Callable[[Message], None] | None = None


class Threads:
    """Owns every thread. Used on the event loop alone."""

    def __init__(
        self,
        *,
        lifetime_s: float = LIFETIME_S,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lifetime_s = lifetime_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._threads: OrderedDict[str, _StoredThread] = OrderedDict()
        self._stored_bytes = 0

    @property
    def stored_bytes(self) -> int:
        """An estimate."""
        return self._stored_bytes

    @contextmanager
    def join(
        self, call: MessagesRequest, size_bytes: int, owner: str = ""
    ) -> Generator[ThreadTurn]:
        """Join `call` with its thread, which is locked while the block lasts.

        `size_bytes` is the length of its body. Raises `ThreadNotFoundError`, also for a thread of
        another owner, `ThreadAlreadyContinuedError`, `ThreadInFlightError`,
        `ThreadFingerprintError`.
        """
        match call.thread:
            case None:
                yield ThreadTurn(call)
            case ContinueThread(previous_message_id=message_id):
                with self._claim(message_id, owner) as before:
                    assert before.call is not None
                    whole = _join(before.call, call)
                    size_bytes += before.size_bytes
                    stored_turns = len(before.call.messages)
                    yield self._stored_turn(whole, size_bytes, owner, message_id, stored_turns)
            case _:
                yield self._stored_turn(call, size_bytes, owner)

    def _stored_turn(
        self,
        call: MessagesRequest,
        size_bytes: int,
        owner: str,
        previous_id: str | None = None,
        stored_turns: int = 0,
    ) -> ThreadTurn:
        def store_answer(message: Message) -> None:
            if previous_id is not None:
                self._remove(previous_id)
                self._store(previous_id, _StoredThread(None, _ENTRY_BYTES, self._clock(), owner))
            size = size_bytes + len(message.to_json()) + _ENTRY_BYTES
            answered = _answered(call, message)
            self._store(message.id, _StoredThread(answered, size, self._clock(), owner))

        return ThreadTurn(call, stored_turns, store_answer)

    @contextmanager
    def _claim(self, message_id: str, owner: str) -> Generator[_StoredThread]:
        self._evict()
        thread = self._threads.get(message_id)
        if thread is None or thread.owner != owner:
            raise ThreadNotFoundError(message_id)
        if thread.call is None:
            raise ThreadAlreadyContinuedError(message_id)
        if thread.is_in_flight:
            raise ThreadInFlightError(message_id)
        self._touch(message_id, thread)
        thread.is_in_flight = True
        try:
            yield thread
        finally:
            thread.is_in_flight = False
            self._touch(message_id, thread)

    def _touch(self, message_id: str, thread: _StoredThread) -> None:
        thread.used_at = self._clock()
        if self._threads.get(message_id) is thread:
            self._threads.move_to_end(message_id)

    def _store(self, message_id: str, thread: _StoredThread) -> None:
        if thread.size_bytes > self._max_bytes:
            return
        self._threads[message_id] = thread
        self._stored_bytes += thread.size_bytes
        self._evict()

    def _remove(self, message_id: str) -> None:
        if removed := self._threads.pop(message_id, None):
            self._stored_bytes -= removed.size_bytes

    def _evict(self) -> None:
        # Ordered by last use, so the first one is the oldest.
        oldest_use = self._clock() - self._lifetime_s
        while self._threads:
            message_id, oldest = next(iter(self._threads.items()))
            is_expired = oldest.used_at < oldest_use and not oldest.is_in_flight
            if not is_expired and self._stored_bytes <= self._max_bytes:
                return
            self._remove(message_id)


def _join(before: MessagesRequest, call: MessagesRequest) -> MessagesRequest:
    """Return `call` with the messages, system prompt and tools of its thread."""
    repeated = [name for name in ("system", "tools") if getattr(call, name)]
    changed = [name for name in _FIXED if getattr(call, name) != getattr(before, name)]
    if differing := repeated + changed:
        raise ThreadFingerprintError(*differing)
    return call.model_copy(
        update={
            "messages": (*before.messages, *call.messages),
            "system": before.system,
            "tools": before.tools,
        }
    )


def _answered(call: MessagesRequest, message: Message) -> MessagesRequest:
    """Return the conversation with its answer; a prefilled assistant turn is merged with it."""
    content = [block.model_dump() for block in message.content]
    if not content:
        return call
    answer = Turn.model_validate({"role": "assistant", "content": content})
    turns = call.messages
    if turns[-1].role == "assistant":
        prefill = without_last_space(turns[-1].content)
        answer = answer.model_copy(update={"content": (*prefill, *answer.content)})
        turns = turns[:-1]
    return call.model_copy(update={"messages": (*turns, answer)})
