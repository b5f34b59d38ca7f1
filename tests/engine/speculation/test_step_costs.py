"""Prices follow the times of real steps."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.speculation.cost_curve import ContextCosts, CostCurve
from pensieve.engine.speculation.step_costs import HALF_LIFE_STEPS, MIN_PLAIN_STEPS, StepCosts

CURVE = CostCurve((ContextCosts(256, {1: 1.0, 2: 1.1, 4: 1.5, 32: 4.0}),))


def costs_after(plain_s: float, *, steps: int = MIN_PLAIN_STEPS) -> StepCosts:
    costs = StepCosts(CURVE)
    for _ in range(steps):
        costs.note_plain(1, 0, plain_s)
    return costs


def test_prices_are_known_once_plain_steps_were_timed() -> None:
    assert not StepCosts(CURVE).is_known(1, 0)
    assert not costs_after(1.0, steps=MIN_PLAIN_STEPS - 1).is_known(1, 0)
    assert costs_after(1.0).is_known(1, 0)
    assert not costs_after(1.0).is_known(2, 0)


def test_ratio_is_that_of_the_curve_before_any_wide_step() -> None:
    assert costs_after(5.0).ratio(4, 1, 0) == pytest.approx(1.5)


@pytest.mark.parametrize("speed", [0.4, 2.5])
def test_ratio_does_not_change_with_the_speed_of_the_whole_machine(speed: float) -> None:
    costs = costs_after(speed)
    assert costs.note_wide(4, 1, 0, 1.5 * speed) == pytest.approx(1.5)
    assert costs.ratio(4, 1, 0) == pytest.approx(1.5)


@given(wrong=st.floats(0.05, 20.0))
def test_wrong_curve_is_corrected_by_a_few_steps(wrong: float) -> None:
    costs = costs_after(1.0)
    for _ in range(24):
        costs.note_wide(4, 1, 0, 1.5 * wrong)
    assert costs.ratio(4, 1, 0) == pytest.approx(1.5 * wrong, rel=0.1)
    assert costs.ratio(2, 1, 0) == pytest.approx(1.1)


def test_correction_of_a_batch_does_not_hold_for_one_sequence() -> None:
    costs = costs_after(1.0)
    for _ in range(MIN_PLAIN_STEPS):
        costs.note_plain(2, 0, 1.1)
    for _ in range(8):
        costs.note_wide(4, 2, 0, 4.4)
    assert costs.ratio(4, 2, 0) == pytest.approx(4.0, rel=0.1)
    assert costs.ratio(4, 1, 0) == pytest.approx(1.5)


def test_noisy_times_give_their_mean() -> None:
    random, costs = Random(1), costs_after(1.0)
    for _ in range(200):
        costs.note_wide(4, 1, 0, random.choice([1.6, 2.4]))
    assert costs.ratio(4, 1, 0) == pytest.approx(2.0, rel=0.15)


def test_one_wide_step_that_was_held_up_counts_at_most_twofold() -> None:
    costs = costs_after(1.0)
    costs.note_wide(4, 1, 0, 1.5)
    assert costs.note_wide(4, 1, 0, 100.0) == pytest.approx(3.0)
    assert costs.ratio(4, 1, 0) == pytest.approx(2.25)


def test_correction_of_an_unused_width_fades() -> None:
    costs = costs_after(1.0)
    costs.note_wide(4, 1, 0, 3.0)
    for _ in range(HALF_LIFE_STEPS):
        costs.note_plain(1, 0, 1.0)
    assert costs.ratio(4, 1, 0) == pytest.approx(1.5 * 1.5)


def test_plain_steps_of_more_rows_than_measured_are_ignored() -> None:
    costs = StepCosts(CURVE)
    costs.note_plain(33, 0, 1.0)
    assert not costs.is_known(33, 0)
