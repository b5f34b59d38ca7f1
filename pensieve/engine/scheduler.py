"""Which generation runs when, and what becomes of all of them when a step fails. Pure: no thread, clock, queue or MLX.

Admission is one pass over the waiting generations, first come first served, up to `max_batch` in the batch. What
cannot be taken is answered, never dropped.

A step that raises leaves the batch's KV caches out of step with their tokens (engine.md, fact 9), so the backend is
thrown away and everything that ran is started again from its token lists: the prompt and what was sampled. Which
generation was at fault is found by running each of them alone until it has brought a token; one that fails alone
is given up.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from pensieve.engine.generation import (
    Finished,
    FinishReason,
    Generation,
    Prefilled,
    Started,
    Token,
)
from pensieve.engine.protocol import Failed, WorkerEvent

KeyedEvent = tuple[int, WorkerEvent]


@dataclass(frozen=True, slots=True)
class Sampled:
    """A backend sampled `token_id` for `key`; `finish` tells whether it was the last."""

    key: int
    token_id: int
    finish: FinishReason | None


@dataclass(frozen=True, slots=True)
class Progressed:
    """A backend has processed `prompt_tokens` of `key`'s prompt."""

    key: int
    prompt_tokens: int


class Backend(Protocol):
    """A batch of sequences that decodes together (engine/batch.py)."""

    def insert(self, key: int, generation: Generation) -> None:
        """Take one more sequence into the batch."""
        ...

    def remove(self, keys: Iterable[int]) -> None:
        """Free the sequences' slots and KV caches, in whatever state they are."""
        ...

    def step(self) -> list[Sampled | Progressed]:
        """One decode step for all, and at most one prefill chunk. Any exception makes the backend unusable."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


@dataclass(slots=True)
class _Live:
    """A generation from submit to finish. A suspect has not proved itself since a step failed."""

    key: int
    generation: Generation
    sampled: list[int] = field(default_factory=list[int])
    is_suspect: bool = False

    def resumed(self) -> Generation:
        """What is left of the generation when its KV cache is lost."""
        return replace(
            self.generation,
            prompt_tokens=(*self.generation.prompt_tokens, *self.sampled),
            max_tokens=self.generation.max_tokens - len(self.sampled),
        )


class Scheduler:
    """Owns the waiting line and the batch; `step` is called for as long as `is_idle` is false."""

    def __init__(
        self, make_backend: Callable[[], Backend], *, max_batch: int, max_waiting: int
    ) -> None:
        self._make_backend = make_backend
        self._backend = make_backend()
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: deque[_Live] = deque()
        self._running: dict[int, _Live] = {}

    @property
    def is_idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self._running and not self._waiting

    def submit(self, key: int, generation: Generation) -> KeyedEvent:
        """Take a generation in; the answer is `Started`, or `Failed` where the line is full."""
        if len(self._waiting) + len(self._running) >= self._max_batch + self._max_waiting:
            return key, Failed("Overloaded: too many requests are waiting.", is_busy=True)
        self._waiting.append(_Live(key, generation))
        return key, Started(cached_tokens=0)

    def cancel(self, key: int) -> None:
        """Forget a generation, wherever it is; an unknown key has just finished by itself."""
        if self._running.pop(key, None) is not None:
            self._backend.remove([key])
        else:
            self._waiting = deque(live for live in self._waiting if live.key != key)

    def step(self) -> list[KeyedEvent]:
        """Admit what fits, then advance the batch once."""
        failures = self._admit()
        try:
            outcomes = self._backend.step()
        except Exception as error:  # noqa: BLE001 - whatever MLX raises, the other generations go on
            return failures + self._recover(error)
        return failures + [event for outcome in outcomes for event in self._translate(outcome)]

    def close(self) -> None:
        """Give the batch back."""
        self._backend.close()

    def _admit(self) -> list[KeyedEvent]:
        failures: list[KeyedEvent] = []
        while self._waiting and self._has_room_for(self._waiting[0]):
            live = self._waiting.popleft()
            try:
                self._backend.insert(live.key, live.resumed())
            except Exception as error:  # noqa: BLE001 - a refused sequence must not end the worker
                failures.append((live.key, _given_up(error)))
            else:
                self._running[live.key] = live
        return failures

    def _has_room_for(self, live: _Live) -> bool:
        if any(running.is_suspect for running in self._running.values()):
            return False
        if live.is_suspect:
            return not self._running
        return len(self._running) < self._max_batch

    def _recover(self, error: Exception) -> list[KeyedEvent]:
        """Start again from token lists, each generation alone; the only one in the batch is the one at fault."""
        lost = list(self._running.values())
        self._running.clear()
        self._backend.close()
        self._backend = self._make_backend()
        if len(lost) == 1:
            return [(lost[0].key, _given_up(error))]
        for live in lost:
            live.is_suspect = True
        self._waiting.extendleft(reversed(lost))
        return []

    def _translate(self, outcome: Sampled | Progressed) -> list[KeyedEvent]:
        live = self._running[outcome.key]
        if isinstance(outcome, Progressed):
            return [(live.key, Prefilled(outcome.prompt_tokens))]
        live.sampled.append(outcome.token_id)
        live.is_suspect = False
        if outcome.finish is None:
            return [(live.key, Token(outcome.token_id))]
        del self._running[live.key]
        finished = (live.key, Finished(outcome.finish, len(live.sampled)))
        if outcome.finish == "stop_token":
            return [finished]
        return [(live.key, Token(outcome.token_id)), finished]


def _given_up(error: Exception) -> Failed:
    return Failed(f"The engine failed on this request: {error}", is_busy=False)
