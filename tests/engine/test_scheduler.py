"""The scheduler against a backend that plays a script: what is sampled, and when a step raises."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.generation import Finished, Generation, Prefilled, Started, Token
from pensieve.engine.protocol import Failed
from pensieve.engine.scheduler import Sampled, Scheduler
from tests.engine.counting_backend import CountingBackend

STOP = 0


@dataclass
class Bench:
    """A scheduler, the backends it made, and everything it said."""

    is_bad: Callable[[tuple[int, ...]], bool] = lambda tokens: False
    max_batch: int = 4
    max_waiting: int = 100
    backends: list[CountingBackend] = field(default_factory=list)
    said: dict[int, list] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(
            self._make_backend, max_batch=self.max_batch, max_waiting=self.max_waiting
        )

    def _make_backend(self) -> CountingBackend:
        self.backends.append(CountingBackend(self.is_bad))
        return self.backends[-1]

    def submit(self, key: int, prompt: tuple[int, ...], max_tokens: int = 3) -> None:
        self.hear([self.scheduler.submit(key, Generation(prompt, max_tokens))])

    def hear(self, events) -> None:
        for key, event in events:
            self.said.setdefault(key, []).append(event)

    def run(self, at_most: int = 500) -> None:
        for _ in range(at_most):
            if self.scheduler.is_idle:
                return
            self.hear(self.scheduler.step())
        raise AssertionError("the scheduler does not come to rest")

    def tokens(self, key: int) -> list[int]:
        return [event.token_id for event in self.said[key] if isinstance(event, Token)]


def expected_tokens(prompt: tuple[int, ...], max_tokens: int) -> list[int]:
    return list(range(len(prompt), len(prompt) + max_tokens))


def test_a_generation_is_started_prefilled_sampled_and_finished() -> None:
    bench = Bench()
    bench.submit(1, (5, 6))
    bench.run()
    assert bench.said[1] == [
        Started(cached_tokens=0),
        Prefilled(2),
        Token(2),
        Token(3),
        Token(4),
        Finished("length", 3),
    ]


def test_what_does_not_fit_the_batch_waits_and_is_served() -> None:
    bench = Bench(max_batch=2)
    for key in range(5):
        bench.submit(key, (9,) * (key + 1))
    bench.run()
    assert bench.backends[0].peak == 2
    assert all(bench.tokens(key) == expected_tokens((9,) * (key + 1), 3) for key in range(5))


def test_a_full_line_is_answered_busy() -> None:
    bench = Bench(max_batch=1, max_waiting=1)
    for key in (1, 2, 3):
        bench.submit(key, (1,))
    assert bench.said[2] == [Started(cached_tokens=0)]
    assert bench.said[3] == [Failed("Overloaded: too many requests are waiting.", is_busy=True)]


def test_a_stop_token_is_not_shown_as_a_token() -> None:
    bench = Bench()
    bench.submit(1, (1,))
    bench.hear(bench.scheduler.step())
    bench.backends[0].step = lambda: [Sampled(1, STOP, "stop_token")]
    bench.hear(bench.scheduler.step())
    assert bench.said[1][-1] == Finished("stop_token", 1)
    assert bench.tokens(1) == []


@pytest.mark.parametrize("steps_before", [0, 1, 2, 3])
def test_a_cancelled_generation_says_no_more_and_frees_its_place(steps_before: int) -> None:
    bench = Bench(max_batch=1)
    bench.submit(1, (1,), max_tokens=50)
    bench.submit(2, (1, 2))
    for _ in range(steps_before):
        bench.hear(bench.scheduler.step())
    said_before = list(bench.said[1])
    bench.scheduler.cancel(1)
    bench.run()
    assert bench.said[1] == said_before
    assert bench.tokens(2) == expected_tokens((1, 2), 3)


def test_cancelling_what_has_just_finished_is_no_mistake() -> None:
    bench = Bench()
    bench.submit(1, (1,))
    bench.run()
    bench.scheduler.cancel(1)
    assert bench.scheduler.is_idle


def test_a_sequence_that_cannot_be_inserted_fails_alone() -> None:
    bench = Bench()
    bench.submit(1, (-1,))
    bench.submit(2, (1, 2))
    bench.run()
    assert bench.said[1][-1] == Failed(
        "The engine failed on this request: a negative token", is_busy=False
    )
    assert bench.tokens(2) == expected_tokens((1, 2), 3)


prompts = st.lists(
    st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple), min_size=1, max_size=7
)


@given(prompts, st.integers(1, 4), st.integers(1, 6), st.integers(1, 8))
def test_whatever_fails_the_others_get_exactly_their_tokens(
    prompts: list[tuple[int, ...]], max_batch: int, bad_token: int, bad_length: int
) -> None:
    """A sequence with `bad_token` raises as soon as it is `bad_length` long, wherever that falls."""

    def is_bad(tokens: tuple[int, ...]) -> bool:
        return bad_token == tokens[0] and len(tokens) >= bad_length

    bench = Bench(is_bad, max_batch=max_batch)
    for key, prompt in enumerate(prompts):
        bench.submit(key, prompt, max_tokens=4)
    bench.run()
    for key, prompt in enumerate(prompts):
        whole = expected_tokens(prompt, 4)
        # The last token is sampled but never stands in a sequence that runs on.
        if is_bad((*prompt, *whole[:-1])):
            assert isinstance(bench.said[key][-1], Failed)
            assert bench.tokens(key) == whole[: len(bench.tokens(key))]
        else:
            assert bench.said[key][-1] == Finished("length", 4)
            assert bench.tokens(key) == whole


def test_every_backend_that_failed_was_closed() -> None:
    bench = Bench(lambda tokens: tokens[0] == 7)
    bench.submit(1, (7,))
    bench.submit(2, (1,))
    bench.run()
    assert len(bench.backends) > 1
    assert all(backend.is_closed for backend in bench.backends[:-1])
