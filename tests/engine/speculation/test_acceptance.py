"""Tokens with drafts are those without, whatever the drafts."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.speculation.acceptance import Accepted, accept

STOP = 9
Model = Callable[[Sequence[int]], int]
Drafter = Callable[[Sequence[int], int], Sequence[int]]


def model_of(choices: Sequence[int]) -> Model:
    """Return a model whose next token depends on the number and the sum of all before it."""
    return lambda before: choices[(7 * len(before) + sum(before)) % len(choices)]


def plain(model: Model, max_tokens: int) -> list[int]:
    answer: list[int] = []
    while len(answer) < max_tokens and STOP not in answer:
        answer.append(model(answer))
    return answer


def with_drafts(model: Model, max_tokens: int, drafter: Drafter) -> tuple[list[int], str | None]:
    answer: list[int] = []
    finish = None
    while finish is None:
        drafts = drafter(answer, len(answer))
        drawn = [model([*answer, *drafts[:at]]) for at in range(len(drafts) + 1)]
        taken = accept(drafts, drawn, {STOP}, max_tokens - len(answer))
        answer += taken.tokens
        finish = taken.finish
    return answer, finish


choices = st.lists(st.integers(0, STOP), min_size=1, max_size=12)


@given(
    choices=choices,
    max_tokens=st.integers(1, 20),
    guesses=st.lists(st.lists(st.booleans(), max_size=6), min_size=1, max_size=8),
)
def test_answer_with_drafts_equals_the_answer_without(
    choices: list[int], max_tokens: int, guesses: list[list[bool]]
) -> None:
    """Drafts are right where a guess is True and wrong where it is False."""
    model = model_of(choices)

    def drafter(answer: Sequence[int], step: int) -> Sequence[int]:
        drafts: list[int] = []
        for is_right in guesses[step % len(guesses)]:
            token = model([*answer, *drafts])
            drafts.append(token if is_right else (token + 1) % (STOP + 1))
        return drafts

    answer, finish = with_drafts(model, max_tokens, drafter)
    assert answer == plain(model, max_tokens)
    assert finish == ("stop_token" if answer[-1] == STOP else "length")


@pytest.mark.parametrize(
    ("drafts", "drawn", "max_tokens", "taken"),
    [
        ((), (3,), 5, Accepted((3,))),
        ((1, 2), (1, 2, 3), 5, Accepted((1, 2, 3))),
        ((1, 2), (1, 4, 3), 5, Accepted((1, 4))),
        ((1, 2), (4, 2, 3), 5, Accepted((4,))),
        ((1, STOP, 2), (1, STOP, 2, 3), 5, Accepted((1, STOP), "stop_token")),
        ((1, 2), (1, 2, STOP), 5, Accepted((1, 2, STOP), "stop_token")),
        ((1, 2), (1, 2, 3), 3, Accepted((1, 2, 3), "length")),
        ((1, 2), (1, 2, 3), 2, Accepted((1, 2), "length")),
        ((1, STOP), (1, STOP, 3), 2, Accepted((1, STOP), "stop_token")),
        ((1, STOP), (1, STOP, 3), 1, Accepted((1,), "length")),
    ],
)
def test_drafts_are_kept_up_to_the_first_difference_stop_token_or_limit(
    drafts: tuple[int, ...], drawn: tuple[int, ...], max_tokens: int, taken: Accepted
) -> None:
    assert accept(drafts, drawn, {STOP}, max_tokens) == taken


def test_kv_state_stays_of_all_tokens_but_the_last() -> None:
    assert accept((1, 2), (1, 2, 3), {STOP}, 5).drafts == 2
    assert accept((1, STOP, 2), (1, STOP, 2, 3), {STOP}, 5).drafts == 1
    assert accept((1, 2), (4, 2, 3), {STOP}, 5).drafts == 0
