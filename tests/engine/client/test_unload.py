"""The worker's loop in this process: when it is unloaded, and when no frame wakes it."""

import socket
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing

import pytest

from pensieve.engine import protocol
from pensieve.engine.generation import EngineStats
from pensieve.engine.grammar.queue import GrammarQueue
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.protocol import FrameBuffer, Unload
from pensieve.engine.scheduling.prefix_cache import PrefixCache
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.worker.context import WorkerContext
from pensieve.engine.worker.worker import (
    LAST_SPILL_S,
    FrontEnd,
    FrontEndGoneError,
    serve,
    spill_rest,
)
from tests.engine.counting_backend import BYTES_PER_TOKEN, CountingBackend


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_all_that_is_not_on_disk_is_handed_to_the_writer() -> None:
    pauses, clock = iter([0.0, 0.0, 0.05, 0.5, None]), Clock()
    spill_rest(lambda: next(pauses), clock.sleep, clock)
    assert list(pauses) == []
    assert clock.now_s == 0.55


def test_a_writer_that_pauses_is_not_waited_for() -> None:
    clock = Clock()
    spill_rest(lambda: LAST_SPILL_S, clock.sleep, clock)
    assert clock.now_s == 0


def test_a_writer_that_is_slow_is_waited_for_within_reason() -> None:
    clock = Clock()
    spill_rest(lambda: 0.5, clock.sleep, clock)
    assert LAST_SPILL_S - 1 <= clock.now_s <= LAST_SPILL_S


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def work_of(prefixes: PrefixCache) -> WorkerContext:
    budget = KVBudget(1000 * BYTES_PER_TOKEN, BYTES_PER_TOKEN)
    scheduler = Scheduler(CountingBackend, prefixes, budget, QueueLimits())

    def figures(_: float) -> EngineStats:
        return EngineStats(None, "by script", 1, 2, 3, prefix_memory_bytes=prefixes.nbytes)

    return WorkerContext(scheduler, 1000, GrammarQueue(lambda _: Future()), figures)


def test_unloaded_it_spills_the_rest_and_returns(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = sockets
    work = work_of(PrefixCache(b"model"))
    left = iter([0.0, 0.0, None])
    work.spill = lambda: next(left)
    ours.sendall(protocol.encode(Unload()))
    with closing(work.anteroom):
        serve(FrontEnd(theirs), work)
    assert list(left) == []


def test_idle_it_wakes_to_give_memory_back_and_says_so(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = sockets
    prefixes = PrefixCache(b"model")
    prefixes.nbytes = 7
    work = work_of(prefixes)

    def relieve() -> Iterator[float | None]:
        yield 0.0
        yield 0.0
        prefixes.nbytes = 0
        yield 0.0
        ours.shutdown(socket.SHUT_WR)
        yield None

    work.relieve = relieve().__next__
    with closing(work.anteroom), pytest.raises(FrontEndGoneError):
        serve(FrontEnd(theirs), work)
    told = FrameBuffer().feed(ours.recv(65536))
    assert [frame.prefix_memory_bytes for frame in told if isinstance(frame, EngineStats)] == [7, 0]
