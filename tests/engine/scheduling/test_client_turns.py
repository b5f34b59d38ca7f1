"""Clients of one priority take turns, within a bound; one client alone is served as it asks."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.generation import PRIORITIES, Generation, Priority
from pensieve.engine.scheduling.request_queue import (
    MAX_BYPASSES,
    ClientTurns,
    Request,
    may_preempt,
)

LONG, SHORT = 4096, 100


@dataclass(frozen=True)
class Call:
    client: str
    length: int = SHORT
    priority: Priority = "main"


def request_of(number: int, call: Call) -> Request:
    generation = Generation(
        (1,) * call.length, max_tokens=1, client=call.client, priority=call.priority
    )
    return Request(number, number, generation)


def calls_of(lengths: st.SearchStrategy[int], clients: str = "abc") -> st.SearchStrategy[Call]:
    return st.builds(Call, st.sampled_from(clients), lengths, st.sampled_from(PRIORITIES))


# Each step is a call that arrives, or None: the next waiting one is admitted.
def steps_of(calls: st.SearchStrategy[Call]) -> st.SearchStrategy[list[Call | None]]:
    return st.lists(st.one_of(calls, st.none()), max_size=40)


def admitted(steps: Sequence[Call | None]) -> Iterator[tuple[Request, list[Request]]]:
    """Yield each admitted request, and those that wait on."""
    turns = ClientTurns()
    waiting: dict[int, Request] = {}
    arrivals = sum(step is not None for step in steps)
    for number, step in enumerate([*steps, *[None] * arrivals]):
        if step is not None:
            waiting[number] = request_of(number, step)
        elif request := turns.select_next(waiting.values()):
            del waiting[request.key]
            turns.take(request, waiting.values())
            yield request, list(waiting.values())


def by_arrival(steps: Sequence[Call | None]) -> Iterator[int]:
    """The order of priority, arrival and bounded bypass, which knows no clients."""
    waiting: list[Request] = []
    arrivals = sum(step is not None for step in steps)
    for number, step in enumerate([*steps, *[None] * arrivals]):
        if step is not None:
            waiting.append(request_of(number, step))
        elif waiting:
            first, *others = sorted(waiting, key=lambda request: request.rank)
            chosen = next((other for other in others if may_preempt(other, first)), first)
            waiting.remove(chosen)
            for other in waiting:
                other.times_bypassed += other.rank < chosen.rank
            yield chosen.key


@given(steps_of(calls_of(st.sampled_from([SHORT, LONG]), clients="a")))
def test_one_client_alone_is_served_by_priority_arrival_and_bounded_bypass(
    steps: list[Call | None],
) -> None:
    assert [request.key for request, _ in admitted(steps)] == list(by_arrival(steps))


@given(steps_of(calls_of(st.just(SHORT))))
def test_a_waiting_client_is_passed_by_each_other_client_once_at_most(
    steps: list[Call | None],
) -> None:
    passed: dict[tuple[str, Priority], Counter[str]] = {}
    for request, waiting in admitted(steps):
        client, priority = request.generation.client, request.generation.priority
        passed.pop((client, priority), None)
        for other in {other.generation.client: other for other in waiting}.values():
            if other.generation.priority == priority and other.generation.client != client:
                passed.setdefault((other.generation.client, priority), Counter())[client] += 1
        for counts in passed.values():
            assert max(counts.values(), default=0) <= 1


@given(steps_of(calls_of(st.sampled_from([SHORT, LONG]))))
def test_a_request_is_bypassed_a_bounded_number_of_times(steps: list[Call | None]) -> None:
    others = 2
    of_a_turn = others * (1 + MAX_BYPASSES) + MAX_BYPASSES
    waited: Counter[int] = Counter()
    before: dict[int, int] = {}
    for request, waiting in admitted(steps):
        for other in waiting:
            if other.rank[0] != request.rank[0]:
                continue
            own = [
                each
                for each in (request, *waiting)
                if _class_of(each) == _class_of(other) and each.order < other.order
            ]
            before.setdefault(other.key, len(own))
            waited[other.key] += request.generation.client != other.generation.client
    assert all(count <= (before[key] + 1) * of_a_turn for key, count in waited.items())


def _class_of(request: Request) -> tuple[str, Priority]:
    return request.generation.client, request.generation.priority


@given(steps_of(calls_of(st.sampled_from([SHORT, LONG]))), st.permutations("abc"))
def test_order_does_not_depend_on_the_names_of_clients(
    steps: list[Call | None], names: list[str]
) -> None:
    renamed = [
        step and Call(names["abc".index(step.client)], step.length, step.priority) for step in steps
    ]
    assert [each.key for each, _ in admitted(steps)] == [each.key for each, _ in admitted(renamed)]


@given(steps_of(calls_of(st.sampled_from([SHORT, LONG]))))
def test_no_request_runs_before_one_of_higher_priority(steps: list[Call | None]) -> None:
    for request, waiting in admitted(steps):
        assert all(request.rank[0] <= other.rank[0] for other in waiting)


def test_one_request_of_a_client_runs_after_one_of_ten_of_another() -> None:
    steps = [*[Call("a")] * 10, Call("b")]
    assert [request.key for request, _ in admitted(steps)] == [0, 10, *range(1, 10)]


def test_clients_alternate_while_both_wait() -> None:
    steps = [*[Call("a")] * 3, *[Call("b")] * 3]
    assert [request.generation.client for request, _ in admitted(steps)] == list("ababab")


def test_requests_of_one_priority_give_no_turn_of_another_away() -> None:
    side = [Call("a", priority="side"), Call("b", priority="side")]
    steps = [Call("b", priority="side"), None, Call("a"), None, *side]
    assert [request.generation.client for request, _ in admitted(steps)] == list("baab")


@pytest.mark.parametrize(("running", "fits"), [("aaa", False), ("aab", True), ("aabb", False)])
def test_of_several_clients_none_has_all_slots(running: str, fits: bool) -> None:
    turns = ClientTurns()
    for client in ("a", "b"):
        turns.take(request_of(0, Call(client)), [])
    requests = [request_of(number, Call(client)) for number, client in enumerate(running)]
    assert turns.has_slot(request_of(9, Call("a")), requests, 4) is fits


def test_a_client_alone_has_all_slots() -> None:
    turns = ClientTurns()
    running = [request_of(number, Call("a")) for number in range(3)]
    turns.take(running[0], [])
    assert turns.has_slot(request_of(9, Call("a")), running, 4)


def test_a_single_slot_is_for_every_client() -> None:
    turns = ClientTurns()
    for client in ("a", "b"):
        turns.take(request_of(0, Call(client)), [])
    assert turns.has_slot(request_of(9, Call("a")), [], 1)
