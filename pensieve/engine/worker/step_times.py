# pyright: basic
"""Measures what decode steps of several rows take on this device, for the policy of drafts.

Called once when a model is loaded. The caches are filled with zeros: their content does not change
the time, and processing a prompt would take longer than all the steps.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.model.cache_maker import CacheMaker, prefilled
from pensieve.engine.model.kv.rewinding import RewindPoint, filled
from pensieve.engine.model.mtp.head import CONTEXT_PAIRS, MtpHead
from pensieve.engine.planning.memory_plan import grown_tokens
from pensieve.engine.speculation.cost_curve import ContextCosts, CostCurve

# The most telling first: time may not suffice for all. Between two, the policy expects the worse.
WIDTHS = (1, 4, 32, 8, 2, 16, 3, 6)
CONTEXTS = (256, 4096)  # tokens
BUDGET_S = 1.0
# A device that is slow, or busy at the time, may take this much longer in each context for the
# widths without which no draft can pay: a few rows, and a tile of them.
EXTRA_S = 1.0
LEAST_WIDTHS = (1, 4, 32)
# Steps with a draft of an MTP head have 2 rows.
LEAST_WIDTHS_WITH_HEAD = (1, 2, 4, 32)
# Increase when the measurement changes.
VERSION = 2
_REPEATS = 3
_ANY_TOKEN = 1

# Decode one step of this many rows and wait for its tokens.
RunStep = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class StepTimer:
    """Measures steps within a budget of time."""

    budget_s: float = BUDGET_S
    extra_s: float = EXTRA_S
    clock: Callable[[], float] = time.monotonic
    least_widths: tuple[int, ...] = LEAST_WIDTHS

    def curve(self, steps: dict[int, RunStep], *, has_exact_widths: bool) -> CostCurve | None:
        """Return the times of steps after each context; None if there was no time for one row."""
        for run in steps.values():
            run(1)  # fills the caches and loads libraries
        contexts: list[ContextCosts] = []
        end_s = self.clock()
        for tokens, run in sorted(steps.items()):
            end_s += self.budget_s / len(steps)
            if seconds := self._seconds(run, end_s, has_exact_widths=has_exact_widths):
                contexts.append(ContextCosts(tokens, seconds))
        return CostCurve(tuple(contexts), has_exact_widths) if contexts else None

    def _seconds(self, run: RunStep, end_s: float, *, has_exact_widths: bool) -> dict[int, float]:
        """Return the shortest time of each width; each once before any again."""
        seconds: dict[int, float] = {}
        for repeat in range(_REPEATS):
            for width in dict.fromkeys((*self.least_widths, *WIDTHS)):
                expected_s = seconds.get(width, 2 * seconds.get(1, 0.0))
                extra_s = 0.0 if repeat or width not in self.least_widths else self.extra_s
                if self.clock() + expected_s >= end_s + extra_s:
                    return seconds
                if has_exact_widths and not repeat:
                    run(width)  # compiles its kernels
                seconds[width] = min(seconds.get(width, math.inf), self._time(run, width))
        return seconds

    def _time(self, run: RunStep, width: int) -> float:
        started_s = self.clock()
        run(width)
        return max(self.clock() - started_s, 1e-9)


def head_seconds(head: MtpHead, clock: Callable[[], float] = time.monotonic) -> float:
    """Return the shortest time of a draft of the MTP head, after as many pairs as it sees."""
    cache = head.make_cache()

    def run(pairs: int) -> None:
        hidden = mx.zeros((1, pairs, head.hidden_size), head.dtype)
        head.draft(hidden, mx.full((1, pairs), _ANY_TOKEN, mx.uint32), cache).tolist()

    for pairs in (CONTEXT_PAIRS, 2, 1):
        run(pairs)  # compiles its kernels
    times: list[float] = []
    for _ in range(_REPEATS):
        started_s = clock()
        run(1)
        times.append(max(clock() - started_s, 1e-9))
    return min(times)


def is_complete(curve: CostCurve) -> bool:
    """Whether every width was measured in the shortest context: worth keeping."""
    return set(curve.contexts[0].seconds) == set(WIDTHS)


def steps_of(make_caches: CacheMaker, max_tokens: int) -> dict[int, RunStep]:
    """Return steps by context; those of contexts that fit `max_tokens`.

    The caches must be such that drafts are possible.
    """
    longest = max_tokens - max(WIDTHS)
    return {
        tokens: _step(make_caches.model, _filled(make_caches, tokens))
        for tokens in CONTEXTS
        if tokens <= longest
    }


def _filled(make_caches: CacheMaker, tokens: int) -> Sequence[Any]:
    short = prefilled(make_caches.model, make_caches(), [_ANY_TOKEN])
    size = grown_tokens(tokens + max(WIDTHS), make_caches.max_tokens)
    return [filled(layer, tokens, size) for layer in short]


def _step(model: Any, caches: Sequence[Any]) -> RunStep:
    batch = [cache.merge([cache]) for cache in caches]

    def run(width: int) -> None:
        point = RewindPoint(batch)
        tokens = mx.full((1, width), _ANY_TOKEN, mx.uint32)
        mx.argmax(model(tokens, cache=batch)[0], axis=-1).tolist()
        point.rewind([width])

    return run
