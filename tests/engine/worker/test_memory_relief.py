"""When memory is released, with a scripted clock and a scripted memory pressure."""

import ctypes
from dataclasses import dataclass, field
from typing import Any

import pytest

from pensieve.engine.generation import Generation
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.scheduling.disk_tier import NoDiskTier
from pensieve.engine.scheduling.prefix_cache import CachedPrefix, PrefixCache
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from pensieve.engine.worker.memory_pressure import CRITICAL, NORMAL, WARNING, pressure_reader
from pensieve.engine.worker.memory_relief import (
    IDLE_CHECK_S,
    IDLE_S,
    WORKING_CHECK_S,
    MemoryRelief,
)
from tests.engine.counting_backend import BYTES_PER_TOKEN, CountingBackend, RememberedState

STORED = tuple(range(300))
UNSTORED = tuple(range(1000, 1400))


@dataclass
class HalfWrittenDisk(NoDiskTier):
    is_storing: bool

    def is_stored(self, prefix: CachedPrefix) -> bool:
        return tuple(prefix.tokens) == STORED


@dataclass
class Bench:
    """An idle scheduler with two cached prefixes, of which one is on disk."""

    level: int | None = None
    is_storing: bool = True
    now_s: float = 0.0
    cleared: int = 0
    checks: int = 0
    backend: CountingBackend = field(default_factory=CountingBackend)

    def __post_init__(self) -> None:
        self.prefixes = PrefixCache(b"model")
        for tokens in (STORED, UNSTORED):
            self.prefixes.insert(tokens, RememberedState(tokens))
        budget = KVBudget(10**6 * BYTES_PER_TOKEN, BYTES_PER_TOKEN)
        cache = TieredPrefixCache(self.prefixes, HalfWrittenDisk(self.is_storing))
        self.scheduler = Scheduler(lambda: self.backend, cache, budget, QueueLimits())
        reader = None if self.level is None else self.read
        self.relief = MemoryRelief(self.scheduler, cache, self.clear, reader, lambda: self.now_s)

    def clear(self) -> None:
        self.cleared += 1

    def read(self) -> int:
        assert self.level is not None
        self.checks += 1
        return self.level

    def at(self, now_s: float) -> float | None:
        self.now_s = now_s
        wait_s = self.relief.step()
        self.prefixes.check()
        return wait_s

    @property
    def cached(self) -> list[tuple[int, ...]]:
        return [tuple(sequence.tokens) for sequence in self.prefixes.sequences()]


def test_nothing_is_released_before_the_idle_time_is_over() -> None:
    bench = Bench()
    assert bench.at(IDLE_S - 1) == 1
    assert len(bench.cached) == 2
    assert bench.cleared == 0


def test_stored_prefixes_and_buffers_are_released_once_after_the_idle_time() -> None:
    bench = Bench()
    assert bench.at(IDLE_S) is None
    assert bench.cached == [UNSTORED]
    assert bench.cleared == 1
    bench.at(IDLE_S + 10)
    assert bench.cleared == 1


def test_work_restarts_the_idle_time() -> None:
    bench = Bench()
    bench.scheduler.submit(1, Generation((1, 2), 2))
    bench.at(IDLE_S)
    bench.scheduler.cancel(1)
    assert bench.at(2 * IDLE_S - 1) == 1
    assert len(bench.cached) == 2
    bench.at(2 * IDLE_S)
    assert bench.cached == [UNSTORED]


def test_pressure_releases_only_stored_prefixes_while_others_are_written() -> None:
    bench = Bench(level=WARNING)
    bench.at(IDLE_CHECK_S)
    assert bench.cached == [UNSTORED]
    assert bench.cleared == 1
    assert not bench.scheduler.is_serial


def test_pressure_releases_all_prefixes_if_none_are_written() -> None:
    bench = Bench(level=WARNING, is_storing=False)
    bench.at(IDLE_CHECK_S)
    assert bench.cached == []


def test_critical_pressure_releases_all_and_admits_one_sequence_at_a_time() -> None:
    bench = Bench(level=CRITICAL)
    bench.at(IDLE_CHECK_S)
    assert bench.cached == []
    for key in (1, 2):
        bench.scheduler.submit(key, Generation((key,) * 5, 3))
    while not bench.scheduler.is_idle:
        bench.scheduler.step()
    assert bench.backend.peak == 1


def test_pressure_at_the_start_releases_prefixes_at_the_first_step() -> None:
    bench = Bench(level=WARNING)
    bench.at(0)
    assert bench.cached == [UNSTORED]


def test_sequences_run_together_again_after_the_pressure() -> None:
    bench = Bench(level=CRITICAL)
    bench.at(IDLE_CHECK_S)
    bench.level = NORMAL
    bench.at(2 * IDLE_CHECK_S)
    for key in (1, 2):
        bench.scheduler.submit(key, Generation((key,) * 5, 3))
    while not bench.scheduler.is_idle:
        bench.scheduler.step()
    assert bench.backend.peak == 2


def test_pressure_is_checked_each_second_during_work_and_rarely_when_idle() -> None:
    bench = Bench(level=NORMAL)
    bench.at(0)
    assert bench.at(IDLE_CHECK_S / 2) == IDLE_CHECK_S / 2
    assert bench.checks == 1
    bench.scheduler.submit(1, Generation((1, 2), 2))
    for moment in range(1, 5):
        bench.at(IDLE_CHECK_S / 2 + moment * WORKING_CHECK_S)
        bench.at(IDLE_CHECK_S / 2 + (moment + 0.5) * WORKING_CHECK_S)
    assert bench.checks == 5
    assert len(bench.cached) == 2


def test_checks_stop_when_nothing_is_left_to_release() -> None:
    bench = Bench(level=CRITICAL)
    bench.at(IDLE_CHECK_S)
    assert bench.at(IDLE_S) is None


class ScriptedKernel:
    """A C library whose `sysctlbyname` checks how it is called."""

    def __init__(self, level: int, result: int = 0) -> None:
        self.names: list[bytes] = []
        signature = ctypes.CFUNCTYPE(
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.POINTER(ctypes.c_int),
            ctypes.POINTER(ctypes.c_size_t),
            ctypes.c_void_p,
            ctypes.c_size_t,
        )

        def answer(name: bytes, old: Any, size: Any, new: int | None, new_size: int) -> int:
            self.names.append(name)
            assert (size[0], new, new_size) == (ctypes.sizeof(ctypes.c_int), None, 0)
            if not result:
                old[0] = level
            return result

        self.sysctlbyname = signature(answer)


@pytest.mark.parametrize("level", [NORMAL, WARNING, CRITICAL])
def test_pressure_is_read_by_sysctl_on_macos(level: int) -> None:
    kernel = ScriptedKernel(level)
    read = pressure_reader("darwin", lambda: kernel)
    assert read is not None
    assert read() == level
    assert kernel.names == [b"kern.memorystatus_vm_pressure_level"]


def test_failed_sysctl_reads_as_normal_pressure() -> None:
    read = pressure_reader("darwin", lambda: ScriptedKernel(CRITICAL, result=-1))
    assert read is not None
    assert read() == NORMAL


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_pressure_reader_exists_only_on_macos(platform: str) -> None:
    assert pressure_reader(platform) is None
