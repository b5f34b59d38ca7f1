"""Changed stats are sent at most once a second, and once more before the worker idles; what they
are of.
"""

import os
import struct
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from pensieve.daemon.libproc import LibProc
from pensieve.engine.disk.block_store import BlockStore, StoreLimits
from pensieve.engine.disk.write_quota import DailyWriteQuota
from pensieve.engine.generation import EngineStats, Generation, Grammar, Started, Token
from pensieve.engine.grammar.compiler import GrammarCompiler
from pensieve.engine.grammar.queue import GrammarQueue
from pensieve.engine.planning.memory_plan import DeviceLimits, KVBudget, ModelFacts, plan
from pensieve.engine.protocol import Frame, Step
from pensieve.engine.scheduling.prefix_cache import PrefixCache
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.scheduler import KeyedEvent, Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from pensieve.engine.worker.stats import StatsReader, footprint_reader
from pensieve.engine.worker.worker import Reporter
from tests.engine.counting_backend import BYTES_PER_TOKEN, CountingBackend


class Bench:
    """A reporter with a manual clock and a value that can be changed."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.used = 0
        self.sent: list[Frame] = []
        self.reporter = Reporter(self.sent.append, self.stats, lambda: self.now_s)

    def stats(self) -> EngineStats:
        return EngineStats(None, "why", 1, 2, 3, kv_used_bytes=self.used)

    def tokens(self, number: int, every_s: float) -> None:
        for _ in range(number):
            self.now_s += every_s
            self.reporter.send_events([(1, Token(5))])

    def report(self, *, is_last: bool = False) -> list[EngineStats]:
        self.reporter.send_stats(is_last=is_last)
        reported = [frame for frame in self.sent if isinstance(frame, EngineStats)]
        self.sent.clear()
        return reported


def test_events_are_sent_at_once_and_an_empty_list_sends_no_frame() -> None:
    bench = Bench()
    bench.reporter.send_events([])
    bench.reporter.send_events([(1, Started(0))])
    assert bench.sent == [Step(((1, Started(0)),))]


def test_stats_are_sent_once_a_second_unless_they_are_the_last() -> None:
    bench = Bench()
    bench.now_s = 0.9
    assert bench.report() == []
    assert bench.report(is_last=True) == [bench.stats()]
    bench.used = 7
    bench.now_s = 1.8
    assert bench.report() == []
    bench.now_s = 2.0
    assert bench.report() == [bench.stats()]


def test_unchanged_stats_are_not_sent_again() -> None:
    bench = Bench()
    assert len(bench.report(is_last=True)) == 1
    bench.now_s = 100.0
    assert bench.report() == []
    assert bench.report(is_last=True) == []


def test_throughput_ignores_the_time_without_tokens() -> None:
    bench = Bench()
    bench.now_s = 3600.0
    bench.tokens(21, 0.05)
    assert [stats.tokens_per_second for stats in bench.report()] == [20.0]
    bench.now_s += 3600.0
    assert bench.report() == []
    bench.tokens(11, 0.1)
    assert [stats.tokens_per_second for stats in bench.report()] == [10.0]


class TimedScheduler(Scheduler):
    """Each step takes a second of the bench's clock for every 100 prompt tokens."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(lambda: CountingBackend(chunk=100), *NO_PREFIXES, QueueLimits())
        self._bench = bench

    def advance(self) -> list[KeyedEvent]:
        before = self.prefilled_tokens
        events = super().advance()
        self._bench.now_s += (self.prefilled_tokens - before) / 100
        return events


NO_PREFIXES = (TieredPrefixCache(PrefixCache(b"model")), KVBudget(10**9, BYTES_PER_TOKEN))


def prompt_rates(bench: Bench, scheduler: Scheduler, prompt_tokens: int) -> list[float]:
    scheduler.submit(1, Generation((prompt_tokens,) * prompt_tokens, 3))
    scheduler.admit()
    while not scheduler.is_idle:
        bench.reporter.send_step(scheduler)
        bench.now_s += 5.0
    return [stats.prompt_tokens_per_second for stats in bench.report()]


def test_prompt_throughput_is_that_of_the_steps_that_process_prompts() -> None:
    bench = Bench()
    assert prompt_rates(bench, TimedScheduler(bench), 350) == [100.0]


def test_prompt_throughput_of_a_few_last_tokens_is_not_reported() -> None:
    bench = Bench()
    scheduler = TimedScheduler(bench)
    assert prompt_rates(bench, scheduler, 20) == [0.0]
    bench.used = 1
    assert prompt_rates(bench, scheduler, 120) == [100.0]


@pytest.fixture
def grammars() -> Iterator[GrammarCompiler]:
    compiler = GrammarCompiler(lambda: pytest.fail("nothing is compiled"))
    yield compiler
    compiler.close()


def reader_of(
    scheduler: Scheduler, grammars: GrammarCompiler, store: BlockStore | None = None
) -> StatsReader:
    facts = ModelFacts(2_000_000_000, 4096, 100, 10, 4, 64)
    memory = plan(facts, DeviceLimits(8_000_000_000, "cpu"))
    queue = GrammarQueue(lambda _: Future[Any]())
    return StatsReader(memory, scheduler, NO_PREFIXES[0], store, grammars, queue, lambda: 77)


def test_requests_are_counted_as_queued_or_running(grammars: GrammarCompiler) -> None:
    scheduler = Scheduler(CountingBackend, *NO_PREFIXES, QueueLimits(max_batch=1))
    reader = reader_of(scheduler, grammars)
    for key in (1, 2, 3):
        scheduler.submit(key, Generation((key,) * 40, 5))
    scheduler.step()
    assert (reader.read().queued, reader.read().running) == (2, 1)
    grammar = Generation((1,), 5, frozenset({2}), grammar=Grammar("slow"))
    reader.grammar_queue.add(4, grammar)
    assert (reader.read().queued, reader.read().running) == (3, 1)
    for key in (1, 2, 3):
        scheduler.cancel(key)
    reader.grammar_queue.cancel(4)
    assert (reader.read().queued, reader.read().running) == (0, 0)
    reader.grammar_queue.close()


def test_stats_have_the_plan_and_the_footprint(grammars: GrammarCompiler) -> None:
    reader = reader_of(Scheduler(CountingBackend, *NO_PREFIXES, QueueLimits()), grammars)
    stats = reader.read()
    assert (stats.memory_limit_bytes, stats.weights_bytes) == (8_000_000_000, 2_000_000_000)
    assert stats.kv_budget_bytes == reader.plan.budget.kv_bytes
    assert (stats.worker_bytes, stats.is_writing_paused) == (77, True)
    reader.grammar_queue.close()


def test_stats_of_a_disk_tier_have_its_size_and_quota(
    grammars: GrammarCompiler, tmp_path: Path
) -> None:
    store = BlockStore(tmp_path / "own", StoreLimits(500, 300), DailyWriteQuota(tmp_path / "quota"))
    scheduler = Scheduler(CountingBackend, *NO_PREFIXES, QueueLimits())
    reader = reader_of(scheduler, grammars, store)
    stats = reader.read()
    assert (stats.prefix_disk_cap_bytes, stats.daily_write_budget_bytes) == (500, 300)
    assert (stats.prefix_disk_bytes, stats.written_today_bytes) == (0, 0)
    assert not stats.is_writing_paused
    store.close()
    reader.grammar_queue.close()


class UsageLibrary:
    """libproc's function for the usage of this process alone."""

    def proc_pid_rusage(self, pid: int, _: int, buffer: Any) -> int:
        assert pid == os.getpid()
        buffer[:] = bytes(16 + 56) + struct.pack("=Q", 9_000_000_000) + bytes(16)
        return 0


def test_footprint_is_that_of_libproc_where_there_is_one() -> None:
    assert footprint_reader(lambda: LibProc(UsageLibrary()))() == 9_000_000_000


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no procfs")
def test_footprint_without_libproc_is_the_resident_memory() -> None:
    assert 10_000_000 < footprint_reader(lambda: None)() < 10_000_000_000
