"""Admission, preemption and failure recovery of running requests.

Pure: no thread, clock, queue or MLX. One prompt, or a few short ones that arrive together, are in
prefill at a time, chosen by request_queue.py, while the other sequences decode. Requests continue
from the prefix cache, and their KV caches return to it whether they finish or are cancelled.
Prefixes on disk are read back one part a step. Every request that cannot run gets `Failed`.

Memory: a request is admitted only if its KV cache fits once the prefix cache has evicted. Only a
step evicts, for what runs; admission never does. Answers are not reserved to their last token; when
running sequences outgrow the budget, the last in rank returns to the queue.

A step that raises leaves KV caches inconsistent with their tokens, so the backend is replaced and
all requests restart from their tokens, each alone until it has sampled one; a request that fails
alone is failed for good.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count, repeat
from typing import assert_never

from pensieve.engine.generation import (
    NO_DRAFTS,
    Admitted,
    Drafted,
    Finished,
    Generation,
    Prefilled,
    Requeued,
    Started,
    Token,
)
from pensieve.engine.pictures import text_tokens
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.protocol import Failed, WorkerEvent
from pensieve.engine.scheduling.backend import (
    Backend,
    Outcome,
    PrefillProgress,
    ReleasedSequence,
    Sampled,
    SequenceFailed,
)
from pensieve.engine.scheduling.failures import log_failure, log_restart
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, Hit, common_prefix_length
from pensieve.engine.scheduling.request_queue import (
    ClientTurns,
    QueueLimits,
    Request,
    may_join,
    may_preempt,
    waits_for,
)
from pensieve.engine.scheduling.restore import Restore, Restored
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache

KeyedEvent = tuple[int, WorkerEvent]

# Answer tokens that must fit when a request joins others.
ANSWER_TOKENS = 512


class Scheduler:
    """Owns the waiting and the running requests. The caller steps it until `is_idle`."""

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        prefix_cache: TieredPrefixCache,
        budget: KVBudget,
        limits: QueueLimits,
    ) -> None:
        self._make_backend = make_backend
        self._backend = make_backend()
        self._prefix_cache = prefix_cache
        self._budget = budget
        self._limits = limits
        self.is_serial = False  # one request runs at a time: memory is short
        self._orders = count()
        self._turns = ClientTurns()
        self._waiting: dict[int, Request] = {}
        self._running: dict[int, Request] = {}
        self._prefilling: list[Request] = []  # in the order of admission
        # Of the last one's prefix; None once it is in the batch.
        self._restore: Restore | None = None
        # Of all requests.
        self.drafts = NO_DRAFTS
        self.preempted = 0  # times that one was returned to the queue for others
        self.prefilled_tokens = 0
        self._sampled_tokens = 0

    @property
    def is_idle(self) -> bool:
        return not self._running and not self._waiting

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def kv_used_bytes(self) -> int:
        """Bytes in the KV caches of running sequences."""
        return sum(
            self._budget.sequence(min(request.cached_tokens + len(request.sampled), request.length))
            for request in self._running.values()
        )

    @property
    def tokens_per_step(self) -> float:
        """Of an answer; 0 if nothing was sampled yet."""
        return self.drafts.tokens_per_step(self._sampled_tokens)

    def submit(self, key: int, generation: Generation) -> KeyedEvent:
        """Queue a generation. The event is `Started`, or `Failed` if it can never run."""
        max_requests = self._limits.max_batch + self._limits.max_waiting
        if len(self._waiting) + len(self._running) >= max_requests:
            return key, Failed("Overloaded: too many requests are waiting.", "busy")
        if generation.pictures and not self._limits.sees:
            return key, Failed("This model does not see pictures.", "engine")
        if not self._has_tokens(text_tokens(generation.prompt_tokens, generation.pictures)):
            # MLX reads past its embeddings for such a token: a crash or a nonsense answer.
            return key, Failed("The prompt has a token that the model does not have.", "engine")
        if not self._has_tokens(token for token, _ in generation.sampling.logit_bias):
            return key, Failed("A bias is for a token that the model does not have.", "engine")
        max_tokens = self._budget.context_tokens - len(generation.prompt_tokens)
        if max_tokens < 1:
            return key, Failed("The prompt does not fit the memory budget.", "engine")
        # The front end limits requests to what fits; the worker must not depend on that.
        bounded = replace(generation, max_tokens=min(generation.max_tokens, max_tokens))
        request = Request(key, next(self._orders), bounded, is_suspect=generation.runs_alone)
        request.cached_tokens = self._prefix_cache.match(request.tokens)
        self._waiting[key] = request
        return key, Started(request.cached_tokens)

    def _has_tokens(self, tokens: Iterable[int]) -> bool:
        return all(0 <= token < self._limits.vocabulary_size for token in tokens)

    def cancel(self, key: int) -> None:
        """Cancel a request. Unknown keys are ignored: it may have finished already."""
        if request := self._running.get(key):
            self._remove(request)
        else:
            self._waiting.pop(key, None)

    def step(self) -> list[KeyedEvent]:
        return [*self.admit(), *self.advance()]

    def advance(self) -> list[KeyedEvent]:
        events = [*self._keep_within_budget(), *self._step_restore()]
        if self._restore is not None and len(self._running) == 1:
            return events
        try:
            outcomes = self._backend.step()
        except Exception as error:  # noqa: BLE001 - MLX may raise anything; other requests survive
            return events + self._recover(error)
        return events + [event for outcome in outcomes for event in self._translate(outcome)]

    def close(self) -> None:
        self._backend.close()

    # Admission

    def admit(self) -> list[KeyedEvent]:
        """Admit requests until none fits or none may join those in prefill."""
        events: list[KeyedEvent] = []
        while self._waiting and (request := self._next_admission()) is not None:
            if not may_join(request, self._prefilling):
                events += self._preempt_prefills()
            self._dequeue(request)
            events += self._begin_prefill(request)
        return events

    def _begin_prefill(self, request: Request) -> list[KeyedEvent]:
        try:
            self._restore = self._acquire_prefix(request)
        except Exception as error:  # noqa: BLE001 - one bad request must not end the worker
            return [(request.key, log_failure(error))]
        self._running[request.key] = request
        self._prefilling.append(request)
        return [(request.key, Admitted()), *self._insert_restored()]

    def _step_restore(self) -> list[KeyedEvent]:
        """Read the next part from disk; after the last one, insert the request into the batch."""
        if self._restore is None:
            return []
        try:
            self._restore.step()
        except Exception as error:  # noqa: BLE001 - as in a step: other requests survive
            request = self._prefilling[-1]
            self._remove(request)
            return [(request.key, log_failure(error))]
        return self._insert_restored()

    def _insert_restored(self) -> list[KeyedEvent]:
        """Insert the last request in prefill into the batch if its prefix is in memory."""
        restore = self._restore
        if restore is None or not restore.is_done:
            return []
        self._restore = None
        return self._insert(self._prefilling[-1], restore.hit)

    def _insert(self, request: Request, hit: Hit | None) -> list[KeyedEvent]:
        """Insert into the batch; send `Started` again if the cached length changed."""
        cached_tokens = hit.cached_tokens if hit else 0
        is_reported = request.has_run or cached_tokens == request.cached_tokens
        request.has_run, request.cached_tokens = True, cached_tokens
        events: list[KeyedEvent] = [] if is_reported else [(request.key, Started(cached_tokens))]
        try:
            self._backend.insert(request.key, request.continuation(), hit)
        except Exception as error:  # noqa: BLE001 - one bad request must not end the worker
            del self._running[request.key]
            self._prefilling.remove(request)
            self._return_to_cache(request, hit)
            return [*events, (request.key, log_failure(error))]
        return events

    def _return_to_cache(self, request: Request, hit: Hit | None) -> None:
        """Cache a prefix that was moved out: the client may try again, without a grammar."""
        if hit and hit.cached_tokens > self._prefix_cache.match(request.tokens):
            released = ReleasedSequence(request.tokens[: hit.cached_tokens], hit.state)
            self._prefix_cache.insert(request.generation, released)

    def _dequeue(self, request: Request) -> None:
        del self._waiting[request.key]
        self._turns.take(request, self._waiting.values())

    def _next_admission(self) -> Request | None:
        """Return the request to admit now: it fits, and may join or preempt those in prefill."""
        # A restore ends soon, and an unfinished one is worthless.
        if self._restore is not None:
            return None
        request = self._turns.select_next(
            request
            for request in self._waiting.values()
            if self._turns.has_slot(request, self._running.values(), self._limits.max_batch)
            and not any(waits_for(request, other) for other in self._prefilling)
        )
        if request is None or not self._fits(request):
            return None
        may_run = may_join(request, self._prefilling) or all(
            may_preempt(request, other) for other in self._prefilling
        )
        return request if may_run else None

    def _preempt_prefills(self) -> list[KeyedEvent]:
        """Return the prompts in prefill, if any, to the queue."""
        events: list[KeyedEvent] = []
        for request in list(self._prefilling):
            request.times_bypassed += 1
            events.append(self._preempt(request))
        return events

    def _fits(self, request: Request) -> bool:
        """Whether there is memory once the prefix cache has evicted, and no other runs alone."""
        if (request.is_suspect or self.is_serial) and self._running:
            return False
        if any(running.is_suspect for running in self._running.values()):
            return False
        return self._bytes_of(request, ANSWER_TOKENS if self._running else 1) <= self._free_bytes

    def _acquire_prefix(self, request: Request) -> Restore:
        """Take the longest prefix: copied from a running sequence, or from the prefix cache."""
        tokens = request.tokens
        shared, key = max(
            (
                (common_prefix_length(tokens, other.tokens), key)
                for key, other in self._running.items()
            ),
            default=(0, 0),
        )
        shared = min(shared, len(tokens) - 1)
        min_tokens = self._prefix_cache.match(tokens) + BLOCK_TOKENS
        if request.generation.shares_prompt and shared == len(tokens) - 1:
            # Of a prompt of one token nothing is shared.
            min_tokens = max(1, min(min_tokens, shared))
        # Caches that cannot be trimmed anywhere give less than is shared, or nothing.
        if (
            shared >= min_tokens
            and (hit := self._backend.fork(key, shared))
            and hit.cached_tokens >= min_tokens
        ):
            return Restored(hit)
        return self._prefix_cache.acquire(tokens)

    # Memory

    def _bytes_of(self, request: Request, more_tokens: int) -> int:
        remaining = request.generation.max_tokens - len(request.sampled)
        return self._budget.sequence(request.length + min(remaining, more_tokens))

    @property
    def _free_bytes(self) -> int:
        """Bytes not taken by running sequences: for others and for the prefix cache."""
        running = sum(self._bytes_of(other, ANSWER_TOKENS) for other in self._running.values())
        return self._budget.kv_bytes - running

    def _keep_within_budget(self) -> list[KeyedEvent]:
        """Evict, then preempt the last in rank, until the next step fits for all."""
        events: list[KeyedEvent] = []
        while not self._evict_for(self._running.values()) and len(self._running) > 1:
            last = max(self._running.values(), key=lambda request: request.rank)
            events.append(self._preempt(last))
        return events

    def _evict_for(self, requests: Iterable[Request]) -> bool:
        """Evict prefixes until the next step of each request fits; return whether it does."""
        step_tokens = self._limits.step_tokens
        needed = sum(self._bytes_of(request, step_tokens) for request in requests)
        excess = needed + self._prefix_cache.nbytes - self._budget.kv_bytes
        return excess <= 0 or self._prefix_cache.evict(excess) >= excess

    def _preempt(self, request: Request) -> KeyedEvent:
        """Move a request back to the queue and cache its KV state."""
        self.preempted += 1
        self._remove(request)
        request.cached_tokens = self._prefix_cache.match(request.tokens)
        self._waiting[request.key] = request
        return request.key, Requeued()

    def _remove(self, request: Request) -> None:
        del self._running[request.key]
        if self._restore is not None and request is self._prefilling[-1]:
            self._restore = None
            self._prefilling.pop()
            return
        if request in self._prefilling:
            self._prefilling.remove(request)
        if released := self._backend.remove(request.key):
            self._prefix_cache.insert(request.generation, released)

    # Outcomes

    def _recover(self, error: Exception) -> list[KeyedEvent]:
        """Requeue all running requests from their tokens; fail one that ran alone."""
        lost = list(self._running.values())
        self._running.clear()
        self._prefilling.clear()
        self._restore = None
        self._backend.close()
        # The error may be a lack of memory.
        self._prefix_cache.evict_all()
        self._backend = self._make_backend()
        if len(lost) == 1:
            return [(lost[0].key, log_failure(error))]
        log_restart(error)
        for request in lost:
            request.is_suspect = True
            request.cached_tokens = 0
            self._waiting[request.key] = request
        return [(request.key, Requeued()) for request in lost]

    def _translate(self, outcome: Outcome) -> list[KeyedEvent]:
        request = self._running[outcome.key]
        match outcome:
            case PrefillProgress():
                return self._record_progress(request, outcome)
            case Sampled():
                return self._record_tokens(request, outcome)
            case SequenceFailed(_, error):
                self._remove(request)
                return [(request.key, log_failure(error))]
            case _:
                assert_never(outcome)

    def _record_progress(self, request: Request, outcome: PrefillProgress) -> list[KeyedEvent]:
        if outcome.is_done and request in self._prefilling:
            self._prefilling.remove(request)
        self.prefilled_tokens += outcome.prompt_tokens - request.cached_tokens
        request.cached_tokens = outcome.prompt_tokens
        return [(request.key, Prefilled(outcome.prompt_tokens))]

    def _record_tokens(self, request: Request, outcome: Sampled) -> list[KeyedEvent]:
        request.sampled.extend(outcome.tokens)
        self._sampled_tokens += len(outcome.tokens)
        events: list[KeyedEvent] = []
        if outcome.drafts is not None:
            request.drafts += outcome.drafts
            self.drafts += outcome.drafts
            events.append((request.key, Drafted(request.drafts)))
        request.is_suspect = request.generation.runs_alone
        is_stopped = outcome.finish == "stop_token"
        visible = outcome.tokens[:-1] if is_stopped else outcome.tokens
        logprobs = outcome.logprobs or repeat(None)
        events += [
            (request.key, Token(token, each))
            for token, each in zip(visible, logprobs, strict=False)
        ]
        return events + self._finish(request, outcome)

    def _finish(self, request: Request, outcome: Sampled) -> list[KeyedEvent]:
        if outcome.finish is None:
            return []
        del self._running[request.key]
        if outcome.released:
            self._prefix_cache.insert(request.generation, outcome.released)
        return [(request.key, Finished(outcome.finish, len(request.sampled)))]
