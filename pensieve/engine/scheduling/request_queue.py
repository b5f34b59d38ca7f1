"""Order of waiting requests: by priority, then by turns of clients, then by arrival. Pure.

Of clients that wait with one priority, the one that was served least recently is next, so one with
ten requests does not hold up another's single one: that waits for at most one request of each other
client. A client alone has its requests in order of arrival. A short prompt may overtake a much
longer one, also one in prefill, a bounded number of times. Short prompts of one priority may be in
prefill together.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from pensieve.engine.generation import NO_DRAFTS, PRIORITIES, DraftCounts, Generation, Priority
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, common_prefix_length

# A prompt with this many uncached tokens can be overtaken by one with a quarter of them.
LONG_PROMPT_TOKENS = 1024
BYPASS_RATIO = 4
MAX_BYPASSES = 4


@dataclass(frozen=True, slots=True)
class QueueLimits:
    max_batch: int = 8  # sequences that run together
    max_waiting: int = 64
    vocabulary_size: int = 2**31  # every token id is below it
    step_tokens: int = 1  # that a step adds to a sequence's caches, refused drafts included
    sees: bool = False  # the model takes pictures


@dataclass(slots=True, eq=False)
class Request:
    """A generation from submit to finish."""

    key: int
    order: int  # of arrival
    generation: Generation
    cached_tokens: int = 0  # when the caches were last checked
    sampled: list[int] = field(default_factory=list[int])
    drafts: DraftCounts = NO_DRAFTS
    times_bypassed: int = 0
    has_run: bool = False  # admitted before
    # Runs alone: a step or a worker failed with it, and it has sampled no token since.
    is_suspect: bool = False

    @property
    def tokens(self) -> tuple[int, ...]:
        """Return the prompt and the sampled tokens: what the KV cache is to hold."""
        return (*self.generation.prompt_tokens, *self.sampled)

    @property
    def length(self) -> int:
        return len(self.generation.prompt_tokens) + len(self.sampled)

    @property
    def uncached_tokens(self) -> int:
        return self.length - self.cached_tokens

    @property
    def rank(self) -> tuple[int, int]:
        # Smaller runs first.
        return PRIORITIES.index(self.generation.priority), self.order

    def continuation(self) -> Generation:
        """Return the remaining generation, with the sampled tokens as part of the prompt."""
        if not self.sampled:
            return self.generation
        return replace(
            self.generation,
            prompt_tokens=self.tokens,
            max_tokens=self.generation.max_tokens - len(self.sampled),
            answered_tokens=self.generation.answered_tokens + len(self.sampled),
        )


class ClientTurns:
    """Owns who was served when: by number of admission, not by time."""

    def __init__(self) -> None:
        self._numbers = count(1)
        # Of each client's last admission, one for each priority: else requests of one could keep
        # those of another from their turn.
        self._last: dict[tuple[Priority, str], int] = {}

    def select_next(self, waiting: Iterable[Request]) -> Request | None:
        ordered = sorted(waiting, key=self._rank)
        if not ordered:
            return None
        return next((other for other in ordered[1:] if may_preempt(other, ordered[0])), ordered[0])

    def take(self, request: Request, others: Iterable[Request]) -> None:
        """Count the admission of `request` as its client's turn; count who of `others`, which wait
        on, was bypassed.
        """
        rank = self._rank(request)
        for other in others:
            other.times_bypassed += self._rank(other) < rank
        self._last[_client_of(request)] = next(self._numbers)

    def has_slot(self, request: Request, running: Collection[Request], max_batch: int) -> bool:
        """Whether `request` may run with these. The last slot is for requests for one answer and,
        once there were several clients, for another one than has all the others.
        """
        if len(running) >= max_batch:
            return False
        client = request.generation.client
        own = sum(other.generation.client == client for other in running)
        choices = sum(other.generation.shares_prompt for other in running)
        all_but_one = max(1, max_batch - 1)
        return not (
            (request.generation.shares_prompt and choices >= all_but_one)
            or (own >= all_but_one and self._has_other_than(client))
        )

    def _has_other_than(self, client: str) -> bool:
        return any(other != client for _, other in self._last)

    def _rank(self, request: Request) -> tuple[int, int, int]:
        # Smaller runs first.
        priority, order = request.rank
        return priority, self._last.get(_client_of(request), 0), order


def _client_of(request: Request) -> tuple[Priority, str]:
    return request.generation.priority, request.generation.client


def may_preempt(other: Request, first: Request) -> bool:
    """Whether `other` may run before `first`, which arrived earlier or is in prefill."""
    if other.rank[0] != first.rank[0]:
        return other.rank[0] < first.rank[0]
    return (
        first.times_bypassed < MAX_BYPASSES
        and first.uncached_tokens >= LONG_PROMPT_TOKENS
        and other.uncached_tokens * BYPASS_RATIO <= first.uncached_tokens
    )


def may_join(request: Request, prefilling: Sequence[Request]) -> bool:
    """Whether `request` may be in prefill with these: all together are no longer than a prompt that
    is never preempted, and none has priority.
    """
    together = (request, *prefilling)
    return sum(other.uncached_tokens for other in together) < LONG_PROMPT_TOKENS and all(
        other.rank[0] == request.rank[0] for other in prefilling
    )


def waits_for(request: Request, prefilling: Request) -> bool:
    """Whether the prompt in prefill will give `request` a longer prefix than any cache has now."""
    prompt_tokens = request.generation.prompt_tokens
    other_tokens = prefilling.generation.prompt_tokens
    if request.generation.shares_prompt and prompt_tokens == other_tokens:
        return True
    shared = common_prefix_length(prompt_tokens, other_tokens)
    return shared >= request.cached_tokens + BLOCK_TOKENS
