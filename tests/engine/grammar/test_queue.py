"""Tests which requests wait for a grammar, and how the worker is woken."""

import select
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from pensieve.engine.generation import Generation, Grammar
from pensieve.engine.grammar.queue import MAX_WAITING, GrammarQueue
from pensieve.engine.protocol import Failed
from pensieve.errors import EngineBusyError, GrammarError


class Compiler:
    """Its futures are completed by the test."""

    def __init__(self) -> None:
        self.futures: dict[str, Future[None]] = {}

    def prepare(self, grammar: Grammar) -> Future[None]:
        return self.futures.setdefault(grammar.lark, Future())


@pytest.fixture
def compiler() -> Compiler:
    return Compiler()


@pytest.fixture
def queue(compiler: Compiler) -> Iterator[GrammarQueue]:
    queue = GrammarQueue(compiler.prepare)
    yield queue
    queue.close()


def with_grammar(lark: str) -> Generation:
    return Generation((1,), 5, frozenset({0}), grammar=Grammar(lark))


def is_readable(queue: GrammarQueue) -> bool:
    return bool(select.select([queue.wakeup], [], [], 0)[0])


def test_ready_requests_leave_in_order_of_arrival(queue: GrammarQueue, compiler: Compiler) -> None:
    for key, lark in enumerate(["a", "b", "a", "c"]):
        assert queue.add(key, with_grammar(lark)) is None
    assert queue.take_ready() == []
    assert not is_readable(queue)
    compiler.futures["a"].set_result(None)
    assert is_readable(queue)
    assert queue.take_ready() == [(0, with_grammar("a")), (2, with_grammar("a"))]
    assert not is_readable(queue)
    compiler.futures["c"].set_result(None)
    compiler.futures["b"].set_result(None)
    assert queue.take_ready() == [(1, with_grammar("b")), (3, with_grammar("c"))]


def test_request_with_a_compiled_grammar_is_ready_at_once(
    queue: GrammarQueue, compiler: Compiler
) -> None:
    compiler.prepare(Grammar("a")).set_result(None)
    queue.add(1, with_grammar("a"))
    assert queue.take_ready() == [(1, with_grammar("a"))]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (GrammarError("no"), "grammar"),
        (EngineBusyError("no"), "busy"),
        (MemoryError("no"), "engine"),
    ],
)
def test_failed_grammar_reports_its_cause(
    queue: GrammarQueue, compiler: Compiler, error: Exception, kind: str
) -> None:
    queue.add(1, with_grammar("a"))
    compiler.futures["a"].set_exception(error)
    assert is_readable(queue)
    ((key, failed),) = queue.take_ready()
    assert key == 1
    assert isinstance(failed, Failed)
    assert (failed.kind, "no" in failed.message) == (kind, True)


def test_cancelled_request_never_becomes_ready(queue: GrammarQueue, compiler: Compiler) -> None:
    queue.add(1, with_grammar("a"))
    queue.cancel(1)
    queue.cancel(2)
    compiler.futures["a"].set_result(None)
    assert queue.take_ready() == []


def test_request_beyond_the_limit_is_refused_as_busy(queue: GrammarQueue) -> None:
    assert {queue.add(key, with_grammar("a")) for key in range(MAX_WAITING)} == {None}
    refused = queue.add(MAX_WAITING, with_grammar("a"))
    assert refused is not None
    assert refused.kind == "busy"


def test_grammar_compiled_after_close_is_ignored(compiler: Compiler) -> None:
    queue = GrammarQueue(compiler.prepare)
    queue.add(1, with_grammar("a"))
    queue.close()
    compiler.futures["a"].set_result(None)
