"""Tests which checkpoints a sequence keeps: few, where later prompts need them."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.model.kv_state import add_checkpoint
from pensieve.engine.planning.memory_plan import MAX_CHECKPOINTS


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=40, unique=True), st.data())
def test_newest_and_pinned_checkpoints_stay_within_the_limit(
    ends: list[int], data: st.DataObject
) -> None:
    ends.sort()
    pinned = data.draw(st.sampled_from([0, *ends]))
    checkpoints: dict[int, dict[int, Any]] = {}
    for end in ends:
        add_checkpoint(checkpoints, end, {}, pinned)
        assert len(checkpoints) <= MAX_CHECKPOINTS
        assert end in checkpoints
        assert pinned in checkpoints or pinned == 0 or pinned > end


def test_checkpoints_are_spread_over_the_sequence() -> None:
    checkpoints: dict[int, dict[int, Any]] = {}
    for end in range(2048, 65_537, 2048):
        add_checkpoint(checkpoints, end, {}, 0)
    assert max(checkpoints) == 65_536
    assert len(checkpoints) == MAX_CHECKPOINTS
    ends = [0, *sorted(checkpoints)]
    assert all(after - before <= 40_000 for before, after in pairwise(ends))
