"""Times of steps by rows: staircase, usable widths, the record in a cache file."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.speculation.cost_curve import (
    ContextCosts,
    CostCurve,
    CurveKey,
    cache_record,
    cached_curve,
)

KEY = CurveKey("fingerprint", "Apple M4 Pro", "0.32.4/1", kv_bits=16)
COSTS = ContextCosts(256, {1: 1.0, 2: 1.1, 4: 1.5, 6: 3.0, 8: 2.0, 32: 4.0})
CURVE = CostCurve((COSTS, ContextCosts(8192, {1: 2.0, 2: 2.1, 4: 2.5})))
seconds = st.floats(1e-6, 1e3)
contexts = st.dictionaries(st.integers(2, 64), seconds, max_size=8).flatmap(
    lambda times: st.builds(lambda one: {**times, 1: one}, seconds)
)
curves = st.builds(
    lambda times, has_exact_widths: CostCurve(
        tuple(ContextCosts(256 * 4**at, one) for at, one in enumerate(times)), has_exact_widths
    ),
    st.lists(contexts, min_size=1, max_size=3),
    st.booleans(),
)


@pytest.mark.parametrize(
    ("rows", "bounds"),
    [(1, (1.0, 1.0)), (3, (1.1, 1.5)), (7, (2.0, 3.0)), (32, (4.0, 4.0)), (33, None), (0, None)],
)
def test_unmeasured_rows_take_the_time_of_a_neighbour(
    rows: int, bounds: tuple[float, float] | None
) -> None:
    assert COSTS.bounds(rows) == bounds


def test_ratio_of_unmeasured_rows_is_the_highest_possible() -> None:
    assert CURVE.ratio(7, 1, 0) == pytest.approx(3.0)
    assert CURVE.ratio(7, 3, 0) == pytest.approx(3.0 / 1.1)
    assert CURVE.ratio(7, 7, 0) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="33"):
        CURVE.ratio(33, 1, 0)


@pytest.mark.parametrize(
    ("tokens", "context_class"), [(0, 0), (256, 0), (1400, 0), (1500, 1), (100_000, 1)]
)
def test_context_class_is_that_of_the_nearest_length(tokens: int, context_class: int) -> None:
    assert CURVE.context_class(tokens) == context_class


def test_widths_are_usable_up_to_the_largest_measured_in_their_context() -> None:
    assert CURVE.usable_rows(0) == list(range(1, 33))
    assert CURVE.usable_rows(1) == [1, 2, 3, 4]
    assert not CURVE.is_usable(5, 1)


def test_only_measured_widths_are_usable_where_each_is_compiled() -> None:
    curve = replace(CURVE, has_exact_widths=True)
    assert curve.usable_rows(0) == [1, 2, 4, 6, 8, 32]
    assert not curve.is_usable(3, 0)


@given(curve=curves)
def test_curve_survives_its_cache_record(curve: CostCurve) -> None:
    record = json.loads(json.dumps(cache_record(KEY, curve)))
    assert cached_curve(record, KEY) == curve


@pytest.mark.parametrize("field", ["model", "device", "version", "kv_bits"])
def test_record_of_another_key_is_not_used(field: str) -> None:
    record = cache_record(KEY, CURVE)
    assert cached_curve(record, replace(KEY, **{field: "other"})) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"contexts": []},
        {"contexts": None},
        {"contexts": [[256, [[2, 1.0]]]]},
        {"contexts": [[256, [[1, 0.0]]]]},
        {"contexts": [[256, [[1, -1.0]]]]},
        {"contexts": [[256, [[1, math.nan]]]]},
        {"contexts": [[256, [[1, math.inf]]]]},
        {"contexts": [[256, [["1", 1.0]]]]},
        {"contexts": [[256, [[1, 1.0], [0, 1.0]]]]},
        {"contexts": [[256, [[1, [1.0]]]]]},
        {"contexts": [["256", [[1, 1.0]]]]},
        {"contexts": [[256, [[1, 1.0]]], [256, [[1, 1.0]]]]},
        {"contexts": [[256, [[1, 1.0]], 3]]},
    ],
)
def test_damaged_record_is_not_used(damage: dict[str, Any]) -> None:
    assert cached_curve({**cache_record(KEY, CURVE), **damage}, KEY) is None


@pytest.mark.parametrize("record", [None, [], {}, "", {"key": None}])
def test_record_of_another_kind_is_not_used(record: object) -> None:
    assert cached_curve(record, KEY) is None
