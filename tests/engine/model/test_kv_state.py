"""Which checkpoints a sequence keeps: few, and where later prompts will need them."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.model.kv_state import add_checkpoint
from pensieve.engine.planning.memory_plan import MAX_CHECKPOINTS


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=40, unique=True), st.data())
def test_the_newest_and_the_pinned_stay_and_no_more_than_are_counted(
    places: list[int], data: st.DataObject
) -> None:
    places.sort()
    pinned = data.draw(st.sampled_from([0, *places]))
    kept: dict[int, dict[int, Any]] = {}
    for place in places:
        add_checkpoint(kept, place, {}, pinned)
        assert len(kept) <= MAX_CHECKPOINTS
        assert place in kept
        assert pinned in kept or pinned == 0 or pinned > place


def test_between_them_they_lie_far_apart() -> None:
    kept: dict[int, dict[int, Any]] = {}
    for place in range(2048, 65_537, 2048):
        add_checkpoint(kept, place, {}, 0)
    assert max(kept) == 65_536
    assert len(kept) == MAX_CHECKPOINTS
    places = [0, *sorted(kept)]
    assert all(after - before <= 40_000 for before, after in pairwise(places))
