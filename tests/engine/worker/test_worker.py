"""The main loop over a counting backend, its waits, and the reason for a failed load."""

import socket
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from pensieve.engine import protocol
from pensieve.engine.generation import EngineStats, Generation
from pensieve.engine.grammar.queue import GrammarQueue
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.protocol import Cancel, Frame, Submit, Unload
from pensieve.engine.scheduling.prefix_cache import PrefixCache
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from pensieve.engine.worker.context import WorkerContext
from pensieve.engine.worker.worker import (
    FOLLOWERS_S,
    MAX_REASON_CHARS,
    SPILL_PAUSE_S,
    SPILL_SHARE,
    FrontEnd,
    SpillPace,
    reason_of,
    receive_followers,
    serve,
)
from tests.engine.counting_backend import CountingBackend


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ValueError("Missing 2 parameters: \nb.weight,\nb.bias."),
            "Missing 2 parameters: b.weight, b.bias.",
        ),
        (KeyError("layers"), "KeyError: 'layers'"),
        (ValueError(), "ValueError: "),
        (SystemExit(1), "SystemExit: 1"),
        (RuntimeError("[metal::malloc] no\n  more"), "RuntimeError: [metal::malloc] no more"),
    ],
)
def test_reason_for_a_failed_load_is_one_line(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason


def test_long_reason_is_truncated() -> None:
    reason = reason_of(ValueError("Missing parameters: " + "a" * 10_000))
    assert reason.endswith("aaa …")
    assert len(reason) == MAX_REASON_CHARS + 2


def test_request_that_arrives_in_a_preload_is_answered_before_its_next_part() -> None:
    ours, theirs = socket.socketpair()
    backend = CountingBackend()
    scheduler = Scheduler(
        lambda: backend, TieredPrefixCache(PrefixCache(b"model")), KVBudget(10**6, 1), QueueLimits()
    )
    processed: list[int] = []

    def send(frame: Frame) -> None:
        ours.sendall(protocol.encode(frame))

    def parts() -> Iterator[float | None]:
        yield 0
        processed.append(backend.processed)
        send(Submit(1, Generation((1, 2, 3), 5)))
        yield 0
        processed.append(backend.processed)
        assert scheduler.is_idle
        yield 0
        send(Unload())
        yield None

    grammar_queue = GrammarQueue(lambda grammar: Future())
    context = WorkerContext(
        scheduler,
        10**6,
        grammar_queue,
        lambda: EngineStats(None, "", 1, 1, 1),
        preload=parts().__next__,
    )
    with ours, theirs:
        serve(FrontEnd(theirs), context)
    grammar_queue.close()
    assert processed == [0, 3]


def submit(key: int, followers: int) -> Submit:
    return Submit(key, Generation((1,), 1), followers)


@dataclass
class Arrivals:
    """Frames that arrive at given times; receiving waits on a clock of its own."""

    frames: list[tuple[float, Frame]]
    now_s: float = 0.0
    waits: list[float] = field(default_factory=list)

    def receive(self, wait_s: float) -> list[Frame]:
        self.waits.append(wait_s)
        end_s = self.now_s + wait_s
        if not self.frames or self.frames[0][0] > end_s:
            self.now_s = end_s
            return []
        self.now_s, frame = self.frames.pop(0)
        return [frame]

    def clock(self) -> float:
        return self.now_s


def test_lone_request_waits_for_no_other() -> None:
    arrivals = Arrivals([(0.001, submit(2, 0))])
    assert receive_followers(arrivals.receive, [submit(1, 0)], arrivals.clock) == []
    assert receive_followers(arrivals.receive, [Cancel(1)], arrivals.clock) == []
    assert arrivals.waits == []


def test_request_waits_for_those_that_are_being_prepared() -> None:
    second, third = submit(2, 1), submit(3, 0)
    arrivals = Arrivals([(0.002, second), (0.004, third), (0.005, submit(4, 0))])
    assert receive_followers(arrivals.receive, [submit(1, 2)], arrivals.clock) == [second, third]


def test_request_waits_for_a_short_time_if_none_follows() -> None:
    arrivals = Arrivals([(0.002, submit(2, 1)), (1.0, submit(3, 0))])
    received = receive_followers(arrivals.receive, [submit(1, 2)], arrivals.clock)
    assert [frame.key for frame in received] == [2]
    assert arrivals.now_s == pytest.approx(FOLLOWERS_S)


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_idle_worker_spills_only_a_moment_after_its_last_step() -> None:
    clock = Clock()
    pace = SpillPace(clock)
    assert pace.wait_s(is_idle=True) <= 0
    pace.note_work()
    assert pace.wait_s(is_idle=True) == pytest.approx(SPILL_PAUSE_S)
    clock.now_s += SPILL_PAUSE_S + 0.001
    assert pace.wait_s(is_idle=True) <= 0
    assert pace.timed(lambda: 3.0) == 3.0
    assert pace.wait_s(is_idle=True) <= 0


def test_busy_worker_spills_for_a_share_of_the_time() -> None:
    clock = Clock()
    pace = SpillPace(clock)
    pace.note_work()
    assert pace.wait_s(is_idle=False) <= 0

    def spill() -> None:
        clock.now_s += 0.1

    pace.timed(spill)
    assert pace.wait_s(is_idle=False) == pytest.approx(0.1 / SPILL_SHARE)
