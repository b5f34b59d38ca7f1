"""The health of several engines as that of one: sums, and the best state."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add

from pensieve.engine.generation import (
    NO_DRAFTS,
    EngineHealth,
    EngineState,
    EngineStats,
    RestartCause,
    WorkTotals,
)

_BEST_FIRST: tuple[EngineState, ...] = ("ready", "asleep", "loading", "failed")
_SUMMED = (
    *("memory_limit_bytes", "weights_bytes", "kv_budget_bytes", "kv_used_bytes"),
    *("prefix_memory_bytes", "prefix_disk_bytes", "prefix_disk_cap_bytes"),
    *("written_today_bytes", "daily_write_budget_bytes", "worker_bytes"),
    *("queued", "running", "preempted", "grammar_s"),
)


def combined(healths: Mapping[str, EngineHealth]) -> EngineHealth:
    """Return the health of all, by name; `replicas` has each one's own."""
    every = list(healths.values())
    best = min(every, key=lambda each: _BEST_FIRST.index(each.state))
    causes: Counter[RestartCause] = Counter()
    for each in every:
        causes.update(each.restarts_by_cause)
    contexts = [each.context_tokens for each in every if each.context_tokens is not None]
    return replace(
        best,
        restarts_by_cause=dict(causes),
        sleeps=sum(each.sleeps for each in every),
        wakes=sum(each.wakes for each in every),
        in_flight=sum(each.in_flight for each in every),
        # Any of them may get the next request.
        context_tokens=min(contexts, default=None),
        stats=_summed([each.stats for each in every if each.stats]),
        poison_prompts=sum(each.poison_prompts for each in every),
        totals=reduce(add, (each.totals for each in every), WorkTotals()),
        replicas=dict(healths),
    )


def _summed(stats: Sequence[EngineStats]) -> EngineStats | None:
    if not stats:
        return None
    sums = {name: sum(getattr(each, name) for each in stats) for name in _SUMMED}
    return replace(
        stats[0],
        **sums,
        tokens_per_second=round(sum(each.tokens_per_second for each in stats), 1),
        prompt_tokens_per_second=max(each.prompt_tokens_per_second for each in stats),
        tokens_per_step=max(each.tokens_per_step for each in stats),
        is_writing_paused=any(each.is_writing_paused for each in stats),
        drafts=reduce(add, (each.drafts for each in stats), NO_DRAFTS),
    )
