"""Which measurement comes next, and what it is expected to take."""

import pytest

from pensieve.bench.plan import (
    COPY,
    LONG,
    SHORT,
    STEPS,
    TOGETHER,
    Pace,
    expected_s,
    fits_context,
    kept_s,
    longer_limit_s,
    next_step,
    restarted,
)

ONE_K, FOUR_K, SIXTEEN_K = LONG
PACE = Pace(prefill=1000.0, decode=50.0, prompt_tokens=1000)


def test_steps_come_in_their_order_then_again() -> None:
    counts = dict.fromkeys(STEPS, 0)
    order = []
    for _ in range(len(STEPS) + 2):
        step = next_step(counts, PACE, {}, left_s=1000.0)
        assert step
        order.append(step)
        counts[step] += 1
    assert order == [*STEPS, *STEPS[:2]]


def test_step_that_does_not_fit_is_passed_over() -> None:
    counts = dict.fromkeys(STEPS, 1) | {SIXTEEN_K: 0}
    assert next_step(counts, PACE, {}, left_s=10.0) == SHORT
    assert next_step(counts, PACE, {}, left_s=0.5) is None


def test_reserve_is_kept_except_for_the_first_time_of_an_essential_step() -> None:
    assert next_step({ONE_K: 0}, PACE, {}, left_s=15.0, reserve_s=14.0) == ONE_K
    assert next_step({ONE_K: 1}, PACE, {}, left_s=15.0, reserve_s=14.0) is None
    assert next_step({TOGETHER: 0}, PACE, {}, left_s=15.0, reserve_s=14.0) is None
    assert (kept_s(ONE_K, 0, 14.0), kept_s(ONE_K, 1, 14.0), kept_s(FOUR_K, 0, 14.0)) == (0, 14, 14)


def test_restarted_prompt_is_measured_once() -> None:
    step = restarted(FOUR_K)
    assert next_step({step: 0}, PACE, {}, left_s=15.0) == step
    assert next_step({step: 1}, PACE, {}, left_s=15.0) is None


@pytest.mark.parametrize(
    ("step", "seconds"),
    [
        (SHORT, 2.0),
        (COPY, 2.2),
        (TOGETHER, 8.0),
        (ONE_K, 1.0 + 4.0),
        (FOUR_K, 4.0 * 1.7 + 4.0),
        (restarted(FOUR_K), 4.0 / 5),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_expected_time_follows_from_the_pace(step: object, seconds: float) -> None:
    assert expected_s(step, PACE, {}) == pytest.approx(seconds)  # type: ignore[arg-type]


def test_expected_time_of_a_known_step_is_that_of_the_last_time() -> None:
    assert expected_s(FOUR_K, PACE, {FOUR_K: 3.0}) == 3.0


@pytest.mark.parametrize(("decode", "tokens"), [(1.0, 16), (50.0, 100), (900.0, 256)])
def test_answers_are_longer_on_faster_machines(decode: float, tokens: int) -> None:
    assert Pace(1.0, decode).answer_tokens == tokens


@pytest.mark.parametrize(("context", "fits"), [(0, True), (4096, False), (8192, True)])
def test_prompt_and_answer_fit_into_the_context(context: int, fits: bool) -> None:
    assert fits_context(FOUR_K, context) == fits


def test_longer_limit_has_room_for_what_is_missing() -> None:
    assert longer_limit_s(60.0, [40.0]) == 120
