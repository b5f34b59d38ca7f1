"""The main loop over a counting backend, and the reason for a failed load in one line."""

import socket
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from pensieve.engine import protocol
from pensieve.engine.generation import EngineStats, Generation
from pensieve.engine.grammar.queue import GrammarQueue
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.protocol import Frame, Submit, Unload
from pensieve.engine.scheduling.prefix_cache import PrefixCache
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from pensieve.engine.worker.context import WorkerContext
from pensieve.engine.worker.worker import MAX_REASON_CHARS, FrontEnd, reason_of, serve
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
        lambda rate: EngineStats(None, "", 1, 1, 1, tokens_per_second=rate),
        preload=parts().__next__,
    )
    with ours, theirs:
        serve(FrontEnd(theirs), context)
    grammar_queue.close()
    assert processed == [0, 3]
