"""The lookup index against a search of every place."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.speculation.draft_source import Proposal
from pensieve.engine.speculation.lookup_index import MAX_MATCH, MIN_MATCH, LookupIndex

VOCABULARY = 4
ALL = 10**6
tokens = st.integers(0, VOCABULARY - 1)
texts = st.lists(tokens, max_size=60)
shadow_lists = st.lists(st.lists(tokens, max_size=20), max_size=3)


def index_of(
    sequence: Sequence[int], shadows: Sequence[Sequence[int]] = (), candidates: int = ALL
) -> LookupIndex:
    index = LookupIndex(VOCABULARY, shadows, candidates)
    index.extend(sequence)
    return index


def common_suffix(text: Sequence[int], tail: Sequence[int]) -> int:
    length = 0
    while length < min(len(text), len(tail)) and text[-1 - length] == tail[-1 - length]:
        length += 1
    return length


def copied(text: Sequence[int], place: int, count: int) -> tuple[int, ...]:
    """Return `count` tokens from `place` on; beyond its end a text repeats itself."""
    longer = list(text)
    for at in range(count):
        longer.append(longer[place + at])
    return tuple(longer[place : place + count])


def found_anywhere(
    sequence: Sequence[int],
    shadows: Sequence[Sequence[int]],
    after: Sequence[int],
    count: int,
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield match length and continuation of every place; the preferred ones last."""
    whole = [*sequence, *after]
    tail = whole[-MAX_MATCH:]
    for shadow in shadows:
        for place in range(len(shadow)):
            yield common_suffix(shadow[:place], tail), tuple(shadow[place : place + count])
    # Places within `after` are not in the index.
    for place in range(min(len(sequence) + 1, len(whole))):
        yield common_suffix(whole[:place], tail), copied(whole, place, count)


@given(sequence=texts, shadows=shadow_lists, after=st.lists(tokens, max_size=4))
def test_first_proposal_is_the_latest_longest_match_of_a_search_of_every_place(
    sequence: list[int], shadows: list[list[int]], after: list[int]
) -> None:
    proposal = index_of(sequence, shadows).propose(after, 6)
    places = list(found_anywhere(sequence, shadows, after, 6))
    longest = max((length for length, _ in places), default=0)
    if longest < MIN_MATCH:
        assert (proposal.tokens, proposal.match_length) == ((), 0)
    else:
        best = [text for length, text in places if length == longest][-1]
        assert (proposal.tokens, proposal.match_length) == (best, longest)


@given(sequence=texts, shadows=shadow_lists)
def test_every_proposal_of_a_growing_sequence_follows_a_longest_match(
    sequence: list[int], shadows: list[list[int]]
) -> None:
    index = index_of((), shadows)
    for at, token in enumerate(sequence, 1):
        index.extend((token,))
        proposal = index.propose((), 6)
        places = list(found_anywhere(sequence[:at], shadows, (), 6))
        longest = max(length for length, _ in places) if places else 0
        if longest < MIN_MATCH:
            assert proposal.tokens == ()
        else:
            assert (proposal.match_length, proposal.tokens) in places
            assert proposal.match_length == longest


@given(sequence=texts, shadows=shadow_lists, candidates=st.integers(1, 3))
def test_proposals_of_few_candidates_are_real_matches(
    sequence: list[int], shadows: list[list[int]], candidates: int
) -> None:
    index = index_of((), shadows, candidates)
    for at, token in enumerate(sequence, 1):
        index.extend((token,))
        proposal = index.propose((), 6)
        if proposal.tokens:
            places = list(found_anywhere(sequence[:at], shadows, (), 6))
            assert (proposal.match_length, proposal.tokens) in places


@given(sequence=texts, shadows=shadow_lists, split=st.integers(0, 60))
def test_proposal_does_not_depend_on_how_the_sequence_was_added(
    sequence: list[int], shadows: list[list[int]], split: int
) -> None:
    index = index_of(sequence[:split], shadows)
    index.extend(sequence[split:])
    assert index.propose((), 6) == index_of(sequence, shadows).propose((), 6)


def test_shadow_is_copied_up_to_its_end() -> None:
    index = index_of([3, 0, 1], shadows=[[0, 1, 2, 2], [3, 3, 3]])
    assert index.propose((), 6) == Proposal("shadow", (2, 2), 2)


def test_sequence_is_preferred_to_a_shadow_with_an_equal_match() -> None:
    index = index_of([0, 1, 3, 2, 0, 1], shadows=[[2, 0, 1, 1], [0, 1, 2]])
    assert index.propose((), 1) == Proposal("shadow", (1,), 3)
    index = index_of([0, 1, 3, 3, 0, 1], shadows=[[0, 1, 2]])
    assert index.propose((), 1) == Proposal("lookup", (3,), 2)


def test_later_shadow_is_preferred() -> None:
    index = index_of([0, 1], shadows=[[0, 1, 2], [0, 1, 3]])
    assert index.propose((), 1).tokens == (3,)


def test_copy_continues_where_the_search_no_longer_reaches() -> None:
    """The pair 0 0 is more frequent than candidates are compared."""
    first = [1, 2, 0, 0, 3, 1]
    index = index_of([*first, *[0, 0, 2, 2] * 9, 1, 2], candidates=2)
    assert index.propose((), 4).tokens == (0, 0, 3, 1)
    index.extend((0, 0))
    assert index.propose((), 2) == Proposal("lookup", (3, 1), 4)


def test_copy_continues_after_a_replaced_token() -> None:
    index = index_of([1, 2, 3, 1, 0, 0, 2, *[0, 0, 3, 3] * 9, 1, 2, 3], candidates=2)
    assert index.propose((), 4).tokens == (1, 0, 0, 2)
    index.extend((2, 0, 0))
    assert index.propose((), 1).tokens == (2,)


def test_longer_match_is_preferred_to_continuing_a_copy() -> None:
    index = index_of([1, 2, 3, 3, 0, 0, 2, *[2, 0, 0, 3], 1, 2])
    assert index.propose((), 4).tokens == (3, 3, 0, 0)
    index.extend((3, 2, 0, 0))
    assert index.propose((), 1) == Proposal("lookup", (3,), 3)


def test_only_the_newest_candidates_are_compared() -> None:
    newer = [1, 0, 0, 2] * 2
    # The last place after 0 0 is the sequence's own end.
    assert index_of([3, 0, 0, 3, *newer, 3, 0, 0], candidates=4).propose((), 1).match_length == 3
    assert index_of([3, 0, 0, 3, *newer, 3, 0, 0], candidates=3).propose((), 1).match_length == 2


@pytest.mark.parametrize("wrong", [-1, VOCABULARY])
def test_ids_beyond_the_vocabulary_are_refused(wrong: int) -> None:
    index = index_of([0, 1, 0, 1])
    before = index.propose((), 4)
    with pytest.raises(ValueError, match="vocabulary"):
        index.extend([0, wrong])
    with pytest.raises(ValueError, match="vocabulary"):
        LookupIndex(VOCABULARY, [[wrong]])
    assert index.propose((), 4) == before
