"""Pinned prefixes are brought back while nothing runs, next to a scheduler with its requests."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.generation import Generation, Token
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.protocol import Preloaded
from pensieve.engine.scheduling.disk_tier import NoDiskTier
from pensieve.engine.scheduling.prefix_cache import Hit, PrefixCache
from pensieve.engine.scheduling.preload import (
    MAX_EXAMINED,
    MAX_PREFIXES,
    MEMORY_SHARE,
    Preload,
)
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from tests.engine.counting_backend import BYTES_PER_TOKEN, CountingBackend, RememberedState

LENGTH = 1024
PART = 256


def project(number: int, length: int = LENGTH) -> tuple[int, ...]:
    return (number,) * length


@dataclass
class PinnedDisk(NoDiskTier):
    """Has whole pinned prefixes, in parts of `PART` tokens, and finds them for preloads only."""

    projects: list[tuple[int, ...]]
    readable_tokens: int = 10**6  # of each prefix
    broken_at: int = 10**6  # the part that cannot be read
    read: list[int] = field(default_factory=list)  # the project of each part read

    def pinned(self) -> Iterator[Sequence[int]]:
        return iter(self.projects)

    def acquire(
        self, hashes: Sequence[bytes], tokens: Sequence[int], *, is_use: bool = True
    ) -> "PartsRestore":
        assert not is_use
        assert tuple(tokens[:-1]) in self.projects
        return PartsRestore(self, tuple(tokens[:-1]))


@dataclass
class PartsRestore:
    disk: PinnedDisk
    tokens: tuple[int, ...]
    parts_read: int = 0

    @property
    def is_done(self) -> bool:
        return self.parts_read * PART >= len(self.tokens)

    @property
    def hit(self) -> Hit | None:
        readable = self.tokens[: self.disk.readable_tokens]
        return Hit(RememberedState(readable), len(readable)) if self.is_done else None

    def step(self) -> None:
        if len(self.disk.read) == self.disk.broken_at:
            raise RuntimeError("no memory")
        self.parts_read += 1
        self.disk.read.append(self.tokens[0])


class Bench:
    """A scheduler over a memory of `kv_tokens`, and a disk with pinned prefixes."""

    def __init__(self, disk: PinnedDisk, kv_tokens: int = 100 * LENGTH) -> None:
        self.memory = PrefixCache(b"model")
        self.budget = KVBudget(kv_tokens * BYTES_PER_TOKEN, BYTES_PER_TOKEN)
        self.announced: list[str] = []
        self.reports: list[Preloaded] = []
        preload = Preload(
            self.memory,
            disk,
            self.budget,
            announce=lambda work, _: self.announced.append(work),
            report=self.reports.append,
            clock=count().__next__,
        )
        self.cache = TieredPrefixCache(self.memory, disk, preload=preload)
        self.backend = CountingBackend()
        self.scheduler = Scheduler(lambda: self.backend, self.cache, self.budget, QueueLimits())

    def preload(self) -> None:
        while self.cache.preload() is not None:
            pass

    def run(self, *prompts: tuple[int, ...], max_tokens: int = 3) -> int:
        """Answer prompts together; return the number of steps until the first token."""
        for key, prompt in enumerate(prompts):
            self.scheduler.submit(key, Generation(prompt, max_tokens, pinned_tokens=0))
        first = steps = 0
        while not self.scheduler.is_idle:
            steps += 1
            events = self.scheduler.step()
            if not first and any(isinstance(event, Token) for _, event in events):
                first = steps
        self.memory.check()
        return first

    @property
    def cached(self) -> list[tuple[int, ...]]:
        return [tuple(prefix.tokens) for prefix in self.memory.sequences()]


def test_prefixes_are_read_one_part_a_step_newest_first_and_each_read_is_announced() -> None:
    disk = PinnedDisk([project(1), project(2)])
    bench = Bench(disk)
    parts = [0]
    while bench.cache.preload() is not None:
        assert len(disk.read) - parts[-1] <= 1
        parts.append(len(disk.read))
    assert disk.read == [1] * 4 + [2] * 4
    assert bench.announced == ["reading a stored prefix back"] * 8
    assert bench.cached == [project(1), project(2)]
    assert bench.cache.preload() is None


def test_result_is_reported_once_with_the_time_of_the_steps_alone() -> None:
    bench = Bench(PinnedDisk([project(1), project(2)]))
    bench.run(project(7))
    bench.preload()
    # A beginning and four parts of each, then the end; the clock ticks once in each.
    expected = [Preloaded(prefixes=2, tokens=2 * LENGTH, spent_s=11)]
    assert bench.reports == expected
    bench.cache.evict_all()
    bench.preload()
    assert bench.reports == expected


def test_nothing_is_reported_if_nothing_is_preloaded() -> None:
    bench = Bench(PinnedDisk([]))
    bench.preload()
    bench.cache.evict_all()
    assert bench.reports == []


def test_only_the_last_projects_are_preloaded() -> None:
    bench = Bench(PinnedDisk([project(number) for number in range(MAX_PREFIXES + 3)]))
    bench.preload()
    assert bench.cached == [project(number) for number in range(MAX_PREFIXES)]


def test_prefixes_like_one_in_memory_are_passed_over_within_bounds() -> None:
    alike = [(*project(1), number) for number in range(MAX_EXAMINED - 1)]
    bench = Bench(PinnedDisk([*alike, project(2), project(3)]))
    bench.preload()
    assert bench.cached == [alike[0], project(2)]


@given(
    st.lists(st.integers(300, 3000), max_size=MAX_PREFIXES),
    st.lists(st.integers(16, 2000), max_size=3),
    st.integers(4000, 20_000),
)
def test_preload_fills_its_share_of_memory_and_evicts_nothing(
    pinned: list[int], requests: list[int], kv_tokens: int
) -> None:
    projects = [project(number, length) for number, length in enumerate(pinned)]
    bench = Bench(PinnedDisk(projects), kv_tokens)
    for number, length in enumerate(requests):
        bench.run(project(100 + number, length), max_tokens=1)
    before, nbytes_before = bench.cached, bench.cache.nbytes
    limit = bench.budget.kv_bytes * MEMORY_SHARE
    while bench.cache.preload() is not None:
        assert bench.cache.nbytes <= max(limit, nbytes_before)
    assert bench.cached[: len(before)] == before
    preloaded = bench.cached[len(before) :]
    assert preloaded == [tokens for tokens in projects if tokens in preloaded]
    left = limit - bench.cache.nbytes
    others = [tokens for tokens in projects if tokens not in preloaded]
    assert all(bench.budget.sequence(len(tokens)) > left for tokens in others)


@pytest.mark.parametrize("parts", range(10))
def test_request_beside_a_preload_runs_as_without_one_and_loses_no_part(parts: int) -> None:
    disk = PinnedDisk([project(1), project(2)])
    bench = Bench(disk)
    for _ in range(parts):
        bench.cache.preload()
    read = list(disk.read)
    assert bench.run(project(7)) == Bench(PinnedDisk([])).run(project(7))
    assert disk.read == read
    bench.preload()
    assert disk.read == [1] * 4 + [2] * 4
    assert bench.cached[0][:LENGTH] == project(7)
    assert bench.cached[1:] == [project(1), project(2)]


def test_request_of_a_preloaded_project_processes_only_its_question() -> None:
    bench = Bench(PinnedDisk([project(1)]))
    bench.preload()
    bench.run((*project(1), 8, 9))
    assert bench.backend.processed == 2


def test_prefix_that_a_request_has_brought_to_memory_meanwhile_is_not_added() -> None:
    disk = PinnedDisk([project(1), project(2)])
    bench = Bench(disk)
    for _ in range(3):
        bench.cache.preload()
    bench.run((*project(1), 8), max_tokens=1)
    bench.run((*project(2), 8), max_tokens=1)
    bench.preload()
    assert disk.read == [1] * 4
    assert len(bench.cached) == 2
    assert bench.cached[0][:LENGTH] == project(2)


def test_memory_that_a_request_needs_comes_from_preloads_and_ends_them() -> None:
    disk = PinnedDisk([project(number) for number in range(1, 5)])
    bench = Bench(disk, kv_tokens=10 * LENGTH)
    bench.run(project(7), max_tokens=1)
    for _ in range(8):
        bench.cache.preload()
    unfinished = bench.cache.nbytes - bench.memory.nbytes
    assert unfinished > 0
    bench.run(project(8, 8 * LENGTH), max_tokens=1)
    assert {tokens[0] for tokens in bench.cached} == {7, 8}
    read = len(disk.read)
    bench.preload()
    assert len(disk.read) == read
    assert bench.cache.nbytes == bench.memory.nbytes


@pytest.mark.parametrize("evict", [TieredPrefixCache.evict_stored, TieredPrefixCache.evict_all])
def test_memory_relief_ends_a_preload(evict) -> None:
    disk = PinnedDisk([project(1), project(2)])
    bench = Bench(disk)
    bench.cache.preload()
    bench.cache.preload()
    evict(bench.cache)
    assert bench.cache.nbytes == 0
    bench.preload()
    assert disk.read == [1]


def test_failed_read_ends_the_preload_and_no_request(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(PinnedDisk([project(1), project(2)], broken_at=5))
    bench.preload()
    assert "preloading failed" in caplog.text
    assert bench.cached == [project(1)]
    assert bench.cache.nbytes == bench.memory.nbytes
    assert bench.run((*project(1), 8)) > 0


def test_incomplete_prefix_is_left_to_requests() -> None:
    disk = PinnedDisk([project(1), project(2)], readable_tokens=LENGTH - 1)
    bench = Bench(disk)
    bench.preload()
    assert bench.cached == []
    assert len(disk.read) == 8


def test_nothing_is_preloaded_without_a_disk_tier() -> None:
    cache = TieredPrefixCache(PrefixCache(b"model"))
    assert cache.preload() is None
