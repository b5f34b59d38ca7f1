"""Which generation runs when, within what memory, and what becomes of all of them when a step fails.

Pure: no thread, clock, queue or MLX. One prompt is processed at a time, while everyone else decodes (request_queue.py says
whose). What comes in is matched against the prefix cache, what goes out is kept there, whether it finished or was
cancelled. What is on disk is read back a part at a step. What cannot be taken is answered.

Memory: nobody is let in whose KV cache would not fit, after the prefix cache has given up what it can. Answers are
not reserved to their last token; when running sequences outgrow the budget, the last in rank goes back to the line.

A step that raises leaves KV caches out of step with their tokens (engine.md, fact 9), so the backend is thrown away
and everyone starts again from token lists, each alone until it has brought a token; one that fails alone is given up.
"""

from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import count
from typing import assert_never

from pensieve.engine.generation import Finished, Generation, Prefilled, Started, Token
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.protocol import Admitted, Failed, WorkerEvent
from pensieve.engine.scheduling.backend import (
    Backend,
    DiskTier,
    Outcome,
    PrefillProgress,
    RestoreSteps,
    Sampled,
    SequenceFailed,
)
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, Hit, PrefixCache
from pensieve.engine.scheduling.request_queue import (
    QueueLimits,
    Request,
    common_prefix_length,
    may_preempt,
    select_next,
)
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache, waits_for

KeyedEvent = tuple[int, WorkerEvent]

# Room that a sequence must find for its answer when it is let in.
ANSWER_TOKENS = 512


class Scheduler:
    """Owns the line and the running sequences; `step` is called for as long as `is_idle` is false."""

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        prefix_cache: PrefixCache,
        budget: KVBudget,
        limits: QueueLimits,
        archive: DiskTier | None = None,
    ) -> None:
        self._make_backend = make_backend
        self._backend = make_backend()
        self._prefixes = prefix_cache
        self._budget = budget
        self._limits = limits
        self._kept = TieredPrefixCache(prefix_cache, archive)
        self.is_serial = False  # sequences are let in one at a time: memory is short
        self._orders = count()
        self._waiting: dict[int, Request] = {}
        self._running: dict[int, Request] = {}
        # The prompt in work, and how it is being read back from disk, for as long as it is.
        self._prefilling: Request | None = None
        self._restore: RestoreSteps | None = None

    @property
    def is_idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self._running and not self._waiting

    @property
    def kv_used_bytes(self) -> int:
        """What the KV caches of running sequences hold."""
        return sum(
            self._budget.sequence(min(live.cached_tokens + len(live.sampled), live.length))
            for live in self._running.values()
        )

    def submit(self, key: int, generation: Generation) -> KeyedEvent:
        """Take a generation in; the answer is `Started`, or `Failed` where there is no place for it."""
        places = self._limits.max_batch + self._limits.max_waiting
        if len(self._waiting) + len(self._running) >= places:
            return key, Failed("Overloaded: too many requests are waiting.", "busy")
        if not all(0 <= token < self._limits.vocabulary_size for token in generation.prompt_tokens):
            # MLX reads past its embeddings for such a token: the process ends or answers nonsense.
            return key, Failed("The prompt has a token that the model does not have.", "engine")
        room = self._budget.context_tokens - len(generation.prompt_tokens)
        if room < 1:
            return key, Failed("The prompt does not fit the memory budget.", "engine")
        # The front end asks for no more than fits; nothing here should depend on it.
        bounded = replace(generation, max_tokens=min(generation.max_tokens, room))
        live = Request(key, next(self._orders), bounded, is_suspect=generation.runs_alone)
        live.cached_tokens = self._kept.match(live.tokens)
        self._waiting[key] = live
        return key, Started(live.cached_tokens)

    def cancel(self, key: int) -> None:
        """Forget a generation, wherever it is; an unknown key has just finished by itself."""
        if live := self._running.get(key):
            self._remove(live)
        else:
            self._waiting.pop(key, None)

    def step(self) -> list[KeyedEvent]:
        """Admit who is next, then advance the batch once."""
        return [*self.admit(), *self.advance()]

    def advance(self) -> list[KeyedEvent]:
        """Advance the batch once."""
        self._keep_within_budget()
        events = self._step_restore()
        if self._restore and len(self._running) == 1:
            return events
        try:
            outcomes = self._backend.step()
        except Exception as error:  # noqa: BLE001 - whatever MLX raises, the other generations go on
            return events + self._recover(error)
        return events + [event for outcome in outcomes for event in self._translate(outcome)]

    def close(self) -> None:
        """Give the batch back."""
        self._backend.close()

    # Who runs

    def admit(self) -> list[KeyedEvent]:
        """Let in all that need no processing to speak of, and one that does."""
        events: list[KeyedEvent] = []
        while self._waiting and (live := self._next()) is not None:
            self._preempt_prefill()
            self._dequeue(live)
            try:
                prefix = self._acquire_prefix(live)
            except Exception as error:  # noqa: BLE001 - a refused sequence must not end the worker
                events.append((live.key, Failed.of(error)))
                continue
            # The prefix first: what has moved into the sequence can no longer be evicted for it.
            self._evict_for(live)
            self._running[live.key] = self._prefilling = live
            events.append((live.key, Admitted()))
            if isinstance(prefix, Generator):
                self._restore = prefix
            else:
                events += self._insert(live, prefix)
        return events

    def _step_restore(self) -> list[KeyedEvent]:
        """The next part of what is on disk; with the last one its sequence joins the batch."""
        live = self._prefilling
        if live is None or self._restore is None:
            return []
        try:
            next(self._restore)
        except StopIteration as read:
            self._restore = None
            return self._insert(live, read.value)
        except Exception as error:  # noqa: BLE001 - as in the batch: the others go on
            self._remove(live)
            return [(live.key, Failed.of(error))]
        return []

    def _insert(self, live: Request, hit: Hit | None) -> list[KeyedEvent]:
        """What needs no processing is told anew where, since it was submitted, others have left more of it, or less."""
        cached_tokens = hit.cached_tokens if hit else 0
        is_told = live.has_run or cached_tokens == live.cached_tokens
        live.has_run, live.cached_tokens = True, cached_tokens
        told: list[KeyedEvent] = [] if is_told else [(live.key, Started(cached_tokens))]
        try:
            self._backend.insert(live.key, live.continuation(), hit)
        except Exception as error:  # noqa: BLE001 - a refused sequence must not end the worker
            del self._running[live.key]
            self._prefilling = None
            return [*told, (live.key, Failed.of(error))]
        return told

    def _dequeue(self, live: Request) -> None:
        del self._waiting[live.key]
        for other in self._waiting.values():
            other.times_bypassed += other.rank < live.rank

    def _next(self) -> Request | None:
        """Return the request to admit now; None while none fits, or none may preempt the prefill."""
        live = select_next(
            other for other in self._waiting.values() if not waits_for(other, self._prefilling)
        )
        if live is None or not self._fits(live):
            return None
        if self._prefilling is None:
            return live
        # What is being read is in work soon, and half of it is worth nothing.
        if self._restore or not may_preempt(live, self._prefilling):
            return None
        return live

    def _preempt_prefill(self) -> None:
        """Send the prompt in work, if any, back to the line."""
        if self._prefilling:
            self._prefilling.times_bypassed += 1
            self._preempt(self._prefilling)

    def _fits(self, live: Request) -> bool:
        """Whether there is a slot, and memory once the prefix cache has given up what it can."""
        if (live.is_suspect or self.is_serial) and self._running:
            return False
        if any(running.is_suspect for running in self._running.values()):
            return False
        if len(self._running) >= self._limits.max_batch:
            return False
        return self._needed_bytes(live) <= self._free_bytes

    def _acquire_prefix(self, live: Request) -> Hit | RestoreSteps | None:
        """Take the longest prefix there is: of a running sequence, in memory, on disk."""
        tokens = live.tokens
        shared, key = max(
            (
                (common_prefix_length(tokens, other.tokens), key)
                for key, other in self._running.items()
            ),
            default=(0, 0),
        )
        shared = min(shared, len(tokens) - 1)
        least = self._kept.match(tokens) + BLOCK_TOKENS
        # Caches that cannot be cut anywhere give less than is shared, or nothing.
        if (
            shared >= least
            and (hit := self._backend.fork(key, shared))
            and hit.cached_tokens >= least
        ):
            return hit
        return self._kept.acquire(tokens)

    # Memory

    def _bytes_of(self, live: Request, more_tokens: int) -> int:
        left = live.generation.max_tokens - len(live.sampled)
        return self._budget.sequence(live.length + min(left, more_tokens))

    def _needed_bytes(self, live: Request) -> int:
        return self._bytes_of(live, ANSWER_TOKENS if self._running else 1)

    @property
    def _free_bytes(self) -> int:
        """What running sequences leave for others and for the prefix cache."""
        running = sum(self._bytes_of(other, ANSWER_TOKENS) for other in self._running.values())
        return self._budget.kv_bytes - running

    def _evict_for(self, live: Request) -> None:
        free_bytes = self._free_bytes - self._prefixes.nbytes
        self._prefixes.evict(self._needed_bytes(live) - free_bytes)

    def _keep_within_budget(self) -> None:
        """Evict, then send back the last in rank, until the next token of all fits."""
        while True:
            running = sum(self._bytes_of(live, 1) for live in self._running.values())
            excess = running + self._prefixes.nbytes - self._budget.kv_bytes
            if excess <= 0 or self._prefixes.evict(excess) >= excess or len(self._running) < 2:
                return
            self._preempt(max(self._running.values(), key=lambda live: live.rank))

    def _preempt(self, live: Request) -> None:
        """From the batch to the line; what was processed waits in the prefix cache."""
        self._remove(live)
        live.cached_tokens = self._kept.match(live.tokens)
        self._waiting[live.key] = live

    def _remove(self, live: Request) -> None:
        del self._running[live.key]
        if self._prefilling is live:
            self._prefilling = None
            if self._restore:
                self._restore.close()
                self._restore = None
                return
        if rest := self._backend.remove(live.key):
            self._kept.insert(live, rest)

    # What comes out

    def _recover(self, error: Exception) -> list[KeyedEvent]:
        """Start again from token lists; the only one in the batch is the one at fault."""
        lost = list(self._running.values())
        self._running.clear()
        self._prefilling = self._restore = None
        self._backend.close()
        # Memory may be what was short.
        self._prefixes.clear()
        self._backend = self._make_backend()
        if len(lost) == 1:
            return [(lost[0].key, Failed.of(error))]
        for live in lost:
            live.is_suspect = True
            live.cached_tokens = 0
            self._waiting[live.key] = live
        return []

    def _translate(self, outcome: Outcome) -> list[KeyedEvent]:
        live = self._running[outcome.key]
        match outcome:
            case PrefillProgress():
                return self._progress(live, outcome)
            case Sampled():
                return self._sample(live, outcome)
            case SequenceFailed(_, error):
                self._remove(live)
                return [(live.key, Failed.of(error))]
            case _:
                assert_never(outcome)

    def _progress(self, live: Request, outcome: PrefillProgress) -> list[KeyedEvent]:
        if outcome.is_done and self._prefilling is live:
            self._prefilling = None
        live.cached_tokens = outcome.prompt_tokens
        return [(live.key, Prefilled(outcome.prompt_tokens))]

    def _sample(self, live: Request, outcome: Sampled) -> list[KeyedEvent]:
        live.sampled.append(outcome.token_id)
        live.is_suspect = live.generation.runs_alone
        if outcome.finish is None:
            return [(live.key, Token(outcome.token_id))]
        return self._finish(live, outcome)

    def _finish(self, live: Request, outcome: Sampled) -> list[KeyedEvent]:
        assert outcome.finish is not None
        del self._running[live.key]
        if outcome.rest:
            self._kept.insert(live, outcome.rest)
        finished = (live.key, Finished(outcome.finish, len(live.sampled)))
        if outcome.finish == "stop_token":
            return [finished]
        return [(live.key, Token(outcome.token_id)), finished]
