"""Message threads: conversations kept between requests, so that a client sends only what is new.

Kept in memory under the id of the last answer, for a while and within a number of bytes, the least recently used going
first. Best effort, as the API says: a client that is told `thread_not_found` sends everything again. An answer can be
continued once. Until the continuing request has its whole answer nothing has changed: one that fails, or whose client
leaves, can be sent again.
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
LIFE_S = 3600.0
MAX_BYTES = 256 * 1024 * 1024

# What an entry costs beside its conversation, also when that has gone on under another id.
_ENTRY_BYTES = 512
# Fields that hold for a whole thread.
_FIXED = ("model", "thinking", "output_config")


@dataclass(slots=True)
class _Kept:
    """A thread's state after one answer. call: None once it was continued."""

    call: MessagesRequest | None
    size_bytes: int
    used_at: float
    is_in_flight: bool = False


@dataclass(frozen=True, slots=True)
class ThreadTurn:
    """One request's part in a thread, or in none.

    call: with the whole conversation. kept: how many of its turns the thread held. keep: takes the answer, if anybody.
    """

    call: MessagesRequest
    kept: int = 0
    keep: Callable[[Message], None] | None = None


class Threads:
    """Owns every thread. Used on the event loop alone."""

    def __init__(
        self,
        *,
        life_s: float = LIFE_S,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._life_s = life_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_bytes = 0

    @property
    def kept_bytes(self) -> int:
        """About how much is kept."""
        return self._kept_bytes

    @contextmanager
    def turn(self, call: MessagesRequest, size_bytes: int) -> Generator[ThreadTurn]:
        """The part of `call`, whose body has `size_bytes`, in its thread, while it is answered.

        Raises `ThreadNotFoundError`, `ThreadAlreadyContinuedError`, `ThreadInFlightError`, `ThreadFingerprintError`.
        """
        match call.thread:
            case None:
                yield ThreadTurn(call)
            case ContinueThread(previous_message_id=message_id):
                with self._claimed(message_id) as before:
                    assert before.call is not None
                    whole = _joined(before.call, call)
                    size_bytes += before.size_bytes
                    yield self._kept_turn(whole, size_bytes, message_id, len(before.call.messages))
            case _:
                yield self._kept_turn(call, size_bytes)

    def _kept_turn(
        self, call: MessagesRequest, size_bytes: int, previous_id: str | None = None, kept: int = 0
    ) -> ThreadTurn:
        def keep(message: Message) -> None:
            if previous_id is not None:
                self._forget(previous_id)
                self._remember(previous_id, _Kept(None, _ENTRY_BYTES, self._clock()))
            size = size_bytes + len(message.to_json()) + _ENTRY_BYTES
            self._remember(message.id, _Kept(_answered(call, message), size, self._clock()))

        return ThreadTurn(call, kept, keep)

    @contextmanager
    def _claimed(self, message_id: str) -> Generator[_Kept]:
        self._drop_what_is_over()
        found = self._kept.get(message_id)
        if found is None:
            raise ThreadNotFoundError(message_id)
        if found.call is None:
            raise ThreadAlreadyContinuedError(message_id)
        if found.is_in_flight:
            raise ThreadInFlightError(message_id)
        self._use(message_id, found)
        found.is_in_flight = True
        try:
            yield found
        finally:
            found.is_in_flight = False
            self._use(message_id, found)

    def _use(self, message_id: str, kept: _Kept) -> None:
        kept.used_at = self._clock()
        if self._kept.get(message_id) is kept:
            self._kept.move_to_end(message_id)

    def _remember(self, message_id: str, kept: _Kept) -> None:
        if kept.size_bytes > self._max_bytes:
            return
        self._kept[message_id] = kept
        self._kept_bytes += kept.size_bytes
        self._drop_what_is_over()

    def _forget(self, message_id: str) -> None:
        if gone := self._kept.pop(message_id, None):
            self._kept_bytes -= gone.size_bytes

    def _drop_what_is_over(self) -> None:
        """Ordered by last use, so whatever is too old or too much is at the front."""
        oldest_use = self._clock() - self._life_s
        while self._kept:
            message_id, oldest = next(iter(self._kept.items()))
            is_over = oldest.used_at < oldest_use and not oldest.is_in_flight
            if not is_over and self._kept_bytes <= self._max_bytes:
                return
            self._forget(message_id)


def _joined(before: MessagesRequest, call: MessagesRequest) -> MessagesRequest:
    """`call` with all that its thread holds already."""
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
    """The conversation with its answer. An answer that went on from the assistant's words belongs to them."""
    content = [block.model_dump() for block in message.content]
    if not content:
        return call
    said = Turn.model_validate({"role": "assistant", "content": content})
    turns = call.messages
    if turns[-1].role == "assistant":
        begun = without_last_space(turns[-1].content)
        said = said.model_copy(update={"content": (*begun, *said.content)})
        turns = turns[:-1]
    return call.model_copy(update={"messages": (*turns, said)})
