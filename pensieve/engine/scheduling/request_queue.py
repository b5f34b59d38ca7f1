"""The generations that wait, and who of them is next. Pure.

By priority, then by arrival; but a short prompt goes ahead of one that is much longer, also of one that is being
processed, a bounded number of times.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from pensieve.engine.generation import PRIORITIES, Generation

# One that has so much left to process can be overtaken by one with a quarter of it.
LONG_PROMPT_TOKENS = 1024
BYPASS_RATIO = 4
MAX_BYPASSES = 4


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """max_batch: sequences that run together. max_waiting: in the line behind them."""

    max_batch: int = 8
    max_waiting: int = 64
    vocabulary_size: int = 2**31  # every token id is below it


@dataclass(slots=True, eq=False)
class Request:
    """A generation from submit to finish.

    cached_tokens: how many of its tokens the KV cache held when it was last looked at. overtaken: how often a shorter
    one went first. has_run: it was let in before. is_suspect: it runs alone, since a step or a
    worker failed with it and it has not proved itself since.
    """

    key: int
    order: int
    generation: Generation
    cached_tokens: int = 0
    sampled: list[int] = field(default_factory=list[int])
    times_bypassed: int = 0
    has_run: bool = False
    is_suspect: bool = False

    @property
    def tokens(self) -> tuple[int, ...]:
        """The prompt and what was sampled: what the KV cache is to hold."""
        return (*self.generation.prompt_tokens, *self.sampled)

    @property
    def length(self) -> int:
        """How many tokens that is."""
        return len(self.generation.prompt_tokens) + len(self.sampled)

    @property
    def uncached_tokens(self) -> int:
        """How many of them are still to be processed."""
        return self.length - self.cached_tokens

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller goes first."""
        return PRIORITIES.index(self.generation.priority), self.order

    def continuation(self) -> Generation:
        """What is left to generate, with everything sampled so far as part of the prompt."""
        if not self.sampled:
            return self.generation
        return replace(
            self.generation,
            prompt_tokens=self.tokens,
            max_tokens=self.generation.max_tokens - len(self.sampled),
            answered_tokens=self.generation.answered_tokens + len(self.sampled),
        )


def select_next(waiting: Iterable[Request]) -> Request | None:
    """Who is admitted next."""
    ordered = sorted(waiting, key=lambda live: live.rank)
    if not ordered:
        return None
    return next((other for other in ordered[1:] if may_preempt(other, ordered[0])), ordered[0])


def may_preempt(other: Request, first: Request) -> bool:
    """Whether `other` goes ahead of `first`, which has waited longer or is being processed."""
    if other.rank[0] != first.rank[0]:
        return other.rank[0] < first.rank[0]
    return (
        first.times_bypassed < MAX_BYPASSES
        and first.uncached_tokens >= LONG_PROMPT_TOKENS
        and other.uncached_tokens * BYPASS_RATIO <= first.uncached_tokens
    )


def common_prefix_length(left: Sequence[int], right: Sequence[int]) -> int:
    """How many first tokens are equal."""
    low, high = 0, min(len(left), len(right)) + 1  # the first difference lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
