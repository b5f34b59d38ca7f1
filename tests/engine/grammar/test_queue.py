"""Who waits for a grammar, and how the worker hears of it."""

import select
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from pensieve.engine.generation import Generation, Grammar
from pensieve.engine.grammar.queue import MAX_WAITING, GrammarQueue
from pensieve.engine.protocol import Failed
from pensieve.errors import EngineBusyError, GrammarError


class Compiler:
    """Compiles when told to."""

    def __init__(self) -> None:
        self.asked: dict[str, Future[None]] = {}

    def prepare(self, grammar: Grammar) -> Future[None]:
        return self.asked.setdefault(grammar.lark, Future())


@pytest.fixture
def compiler() -> Compiler:
    return Compiler()


@pytest.fixture
def anteroom(compiler: Compiler) -> Iterator[GrammarQueue]:
    anteroom = GrammarQueue(compiler.prepare)
    yield anteroom
    anteroom.close()


def with_grammar(lark: str) -> Generation:
    return Generation((1,), 5, frozenset({0}), grammar=Grammar(lark))


def rings(anteroom: GrammarQueue) -> bool:
    return bool(select.select([anteroom.bell], [], [], 0)[0])


def test_who_has_a_grammar_leaves_in_the_order_of_arrival(
    anteroom: GrammarQueue, compiler: Compiler
) -> None:
    for key, lark in enumerate(["a", "b", "a", "c"]):
        assert anteroom.add(key, with_grammar(lark)) is None
    assert anteroom.take_ready() == []
    assert not rings(anteroom)
    compiler.asked["a"].set_result(None)
    assert rings(anteroom)
    assert anteroom.take_ready() == [(0, with_grammar("a")), (2, with_grammar("a"))]
    assert not rings(anteroom)
    compiler.asked["c"].set_result(None)
    compiler.asked["b"].set_result(None)
    assert anteroom.take_ready() == [(1, with_grammar("b")), (3, with_grammar("c"))]


def test_a_grammar_that_is_there_already_is_waited_for_no_time(
    anteroom: GrammarQueue, compiler: Compiler
) -> None:
    compiler.prepare(Grammar("a")).set_result(None)
    anteroom.add(1, with_grammar("a"))
    assert anteroom.take_ready() == [(1, with_grammar("a"))]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (GrammarError("no"), "grammar"),
        (EngineBusyError("no"), "busy"),
        (MemoryError("no"), "engine"),
    ],
)
def test_who_will_get_none_is_told_why(
    anteroom: GrammarQueue, compiler: Compiler, error: Exception, kind: str
) -> None:
    anteroom.add(1, with_grammar("a"))
    compiler.asked["a"].set_exception(error)
    assert rings(anteroom)
    ((key, failed),) = anteroom.take_ready()
    assert key == 1
    assert isinstance(failed, Failed)
    assert (failed.kind, "no" in failed.message) == (kind, True)


def test_who_is_cancelled_leaves_never(anteroom: GrammarQueue, compiler: Compiler) -> None:
    anteroom.add(1, with_grammar("a"))
    anteroom.cancel(1)
    anteroom.cancel(2)
    compiler.asked["a"].set_result(None)
    assert anteroom.take_ready() == []


def test_too_many_are_told_to_come_again(anteroom: GrammarQueue) -> None:
    assert {anteroom.add(key, with_grammar("a")) for key in range(MAX_WAITING)} == {None}
    refused = anteroom.add(MAX_WAITING, with_grammar("a"))
    assert refused is not None
    assert refused.kind == "busy"


def test_what_is_compiled_after_the_end_disturbs_nobody(compiler: Compiler) -> None:
    anteroom = GrammarQueue(compiler.prepare)
    anteroom.add(1, with_grammar("a"))
    anteroom.close()
    compiler.asked["a"].set_result(None)
