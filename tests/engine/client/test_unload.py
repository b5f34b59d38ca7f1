"""The worker's main loop, run in this process: unloading, and memory relief while idle."""

import socket
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing

import pytest

from pensieve.engine import protocol
from pensieve.engine.generation import EngineStats, Generation
from pensieve.engine.grammar.queue import GrammarQueue
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.protocol import Cancel, FrameBuffer, Submit, Unload
from pensieve.engine.scheduling.prefix_cache import MIN_TOKENS, PrefixCache
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
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
    """Time passes only in `sleep`."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_all_unstored_blocks_are_queued_for_the_disk() -> None:
    pauses, clock = iter([0.0, 0.0, 0.05, 0.5, None]), Clock()
    spill_rest(lambda: next(pauses), clock.sleep, clock)
    assert list(pauses) == []
    assert clock.now_s == 0.55


def test_spill_does_not_wait_for_a_paused_writer() -> None:
    clock = Clock()
    spill_rest(lambda: LAST_SPILL_S, clock.sleep, clock)
    assert clock.now_s == 0


def test_spill_waits_for_a_slow_writer_up_to_its_limit() -> None:
    clock = Clock()
    spill_rest(lambda: 0.5, clock.sleep, clock)
    assert LAST_SPILL_S - 1 <= clock.now_s <= LAST_SPILL_S


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def context_of(prefixes: PrefixCache) -> WorkerContext:
    budget = KVBudget(1000 * BYTES_PER_TOKEN, BYTES_PER_TOKEN)
    scheduler = Scheduler(CountingBackend, TieredPrefixCache(prefixes), budget, QueueLimits())

    def read_stats() -> EngineStats:
        return EngineStats(None, "by script", 1, 2, 3, prefix_memory_bytes=prefixes.nbytes)

    return WorkerContext(scheduler, 1000, GrammarQueue(lambda _: Future()), read_stats)


def test_unload_spills_the_remaining_blocks_and_ends_the_loop(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = sockets
    context = context_of(PrefixCache(b"model"))
    pauses = iter([0.0, 0.0, None])
    context.spill = lambda: next(pauses)
    ours.sendall(protocol.encode(Unload()))
    with closing(context.grammar_queue):
        serve(FrontEnd(theirs), context)
    assert list(pauses) == []


def test_unload_spills_what_the_cancellations_before_it_release(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = sockets
    prefixes = PrefixCache(b"model")
    context = context_of(prefixes)
    spilled: list[int] = []

    def spill() -> float | None:
        """The first call is made while the request runs."""
        if not spilled:
            ours.sendall(protocol.encode(Cancel(1)) + protocol.encode(Unload()))
        spilled.append(len(list(prefixes.sequences())))
        return None

    context.spill = spill
    ours.sendall(protocol.encode(Submit(1, Generation((1,) * MIN_TOKENS, 500))))
    with closing(context.grammar_queue):
        serve(FrontEnd(theirs), context)
    assert (spilled[0], spilled[-1]) == (0, 1)


def test_idle_worker_releases_memory_and_reports_it(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = sockets
    prefixes = PrefixCache(b"model")
    prefixes.nbytes = 7
    context = context_of(prefixes)

    def relieve() -> Iterator[float | None]:
        yield 0.0
        yield 0.0
        prefixes.nbytes = 0
        yield 0.0
        ours.shutdown(socket.SHUT_WR)
        yield None

    context.relieve = relieve().__next__
    with closing(context.grammar_queue), pytest.raises(FrontEndGoneError):
        serve(FrontEnd(theirs), context)
    frames = FrameBuffer().feed(ours.recv(65536))
    assert [frame.prefix_memory_bytes for frame in frames if isinstance(frame, EngineStats)] == [
        7,
        0,
    ]
