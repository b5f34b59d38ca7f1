"""The figures of a worker: its speeds, and what scheduler, caches, disk and memory hold.

The main loop in worker.py sends them to the front end about once a second. No MLX.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pensieve.daemon.libproc import LibProc, load
from pensieve.engine.disk.block_store import BlockStore
from pensieve.engine.generation import EngineStats
from pensieve.engine.grammar.compiler import GrammarCompiler
from pensieve.engine.grammar.queue import GrammarQueue
from pensieve.engine.planning.memory_plan import MemoryPlan
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache

# Tokens further apart belong to different bursts: in between the engine was idle, or processed a
# long prompt.
_BURST_S = 5.0
# The last tokens of a prompt, if they are no more than this, are computed after their step
# (engine/model/batch.py): its duration says nothing about their speed.
_UNTIMED_TOKENS = 32


@dataclass(slots=True)
class Throughput:
    """Tokens per second of all answers together, over the latest burst. Callers pass the time."""

    _began_s: float = 0.0
    _last_s: float = -_BURST_S
    _tokens: int = 0
    _rate: float = 0.0

    def note(self, tokens: int, now_s: float) -> None:
        """Count tokens sampled by now. The first ones of a burst only start its clock."""
        if now_s - self._last_s >= _BURST_S:
            self._began_s, self._tokens = now_s, 0
        else:
            self._tokens += tokens
        self._last_s = now_s

    def read(self) -> float:
        """Return the rate since the last call, or the previous one if no tokens came since."""
        if self._last_s > self._began_s:
            self._rate = self._tokens / (self._last_s - self._began_s)
            self._began_s, self._tokens = self._last_s, 0
        return self._rate


@dataclass(slots=True)
class PromptThroughput:
    """Prompt tokens per second, of the steps that processed any."""

    _tokens: int = 0
    _seconds: float = 0.0
    _rate: float = 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """Count a step of `seconds`. Those without a chunk of a prompt are left out."""
        if tokens > _UNTIMED_TOKENS:
            self._tokens += tokens
            self._seconds += seconds

    def read(self) -> float:
        """Return the rate since the last call, or the previous one without a chunk since."""
        if self._seconds:
            self._rate = self._tokens / self._seconds
            self._tokens, self._seconds = 0, 0.0
        return self._rate


def footprint_reader(load: Callable[[], LibProc | None] = load) -> Callable[[], int]:
    """Return a reader of this process's memory: its footprint by libproc, else its resident bytes.

    Resident bytes lack what a GPU has written.
    """
    library = load()
    return partial(library.footprint, os.getpid()) if library else _resident_bytes


def _resident_bytes() -> int:
    """Read the second field of proc_pid_statm(5); 0 where there is none."""
    with suppress(OSError):
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0


@dataclass(frozen=True, slots=True)
class StatsReader:
    plan: MemoryPlan
    scheduler: Scheduler
    prefix_cache: TieredPrefixCache
    store: BlockStore | None  # None: no disk tier
    grammars: GrammarCompiler
    grammar_queue: GrammarQueue
    read_footprint: Callable[[], int] = field(default_factory=footprint_reader)

    def read(self) -> EngineStats:
        """Return the figures, without speeds."""
        plan, scheduler = self.plan, self.scheduler
        stats = EngineStats(
            plan.precision.bits,
            plan.reason,
            plan.limit_bytes,
            plan.weights_bytes,
            plan.budget.kv_bytes,
            scheduler.kv_used_bytes,
            self.prefix_cache.nbytes,
            is_writing_paused=True,
            worker_bytes=self.read_footprint(),
            queued=scheduler.queued + len(self.grammar_queue),
            running=scheduler.running,
            tokens_per_step=round(scheduler.tokens_per_step, 2),
            preempted=scheduler.preempted,
            grammar_s=round(self.grammars.spent_s, 3),
            drafts=scheduler.drafts,
        )
        return _with_disk(stats, self.store) if self.store else stats


def _with_disk(stats: EngineStats, store: BlockStore) -> EngineStats:
    return replace(
        stats,
        prefix_disk_bytes=store.nbytes,
        prefix_disk_cap_bytes=store.limits.cap_bytes,
        written_today_bytes=store.written_today,
        daily_write_budget_bytes=store.limits.daily_bytes,
        is_writing_paused=not store.is_writing,
    )
