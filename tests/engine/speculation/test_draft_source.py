"""Combining and slicing drafts of several sources."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.generation import DraftCounts, SourceCounts
from pensieve.engine.speculation.draft_source import Draft, Proposal, combine
from pensieve.engine.speculation.lookup_index import LookupIndex


@dataclass(frozen=True)
class Fixed:
    """Proposes the same tokens wherever it is asked."""

    proposal: Proposal

    def extend(self, tokens: Sequence[int]) -> None:
        pass

    def propose(self, after: Sequence[int], max_tokens: int) -> Proposal:
        return self.proposal


FORCED = Fixed(Proposal("grammar", (7, 8), is_certain=True))
SILENT = Fixed(Proposal("grammar"))
MTP = Fixed(Proposal("mtp", (5,)))
drafts = st.lists(
    st.builds(
        Proposal,
        source=st.sampled_from(["grammar", "lookup"]),
        tokens=st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple),
    ),
    max_size=3,
).map(lambda proposals: Draft(tuple(proposals)))


def test_lookup_continues_the_forced_tokens() -> None:
    index = LookupIndex(10)
    index.extend([7, 8, 3, 4, 1])
    draft = combine([FORCED, index], 4)
    assert draft.tokens == (7, 8, 3, 4)
    assert (draft.certain_tokens, draft.match_length) == (2, 2)


def test_first_uncertain_proposal_ends_the_draft() -> None:
    index = LookupIndex(10)
    index.extend([1, 2, 3, 1, 2])
    assert combine([SILENT, index, MTP], 2).drafted_by_source() == {"lookup": 2}
    assert combine([SILENT, LookupIndex(10), MTP], 2).drafted_by_source() == {"mtp": 1}


def test_draft_has_at_most_the_requested_tokens() -> None:
    assert combine([FORCED, MTP], 1).tokens == (7,)
    assert combine([FORCED, MTP], 2).tokens == (7, 8)
    assert combine([FORCED, MTP], 0).tokens == ()


@given(draft=drafts, count=st.integers(0, 12))
def test_parts_of_a_draft_have_its_tokens(draft: Draft, count: int) -> None:
    assert draft.first(count).tokens == draft.tokens[:count]
    assert draft.without_first(count).tokens == draft.tokens[count:]
    assert len(draft) == len(draft.tokens)
    assert sum(draft.accepted_by_source(count).values()) == len(draft.tokens[:count])


def test_accepted_tokens_are_counted_by_source() -> None:
    draft = combine([FORCED, MTP], 4)
    assert draft.accepted_by_source(1) == {"grammar": 1}
    assert draft.accepted_by_source(3) == {"grammar": 2, "mtp": 1}


def test_counts_have_the_known_sources_alone() -> None:
    lookup = Fixed(Proposal("lookup", (4, 4, 4)))
    assert combine([FORCED, lookup], 4).counts(3) == DraftCounts(
        grammar=SourceCounts(2, 2), lookup=SourceCounts(2, 1)
    )
    assert combine([MTP], 4).counts(1) == DraftCounts(mtp=SourceCounts(1, 1))
    assert combine([Fixed(Proposal("other", (5,)))], 4).counts(1) == DraftCounts()


def test_tokens_per_step_are_one_and_what_drafts_add() -> None:
    counts = DraftCounts(SourceCounts(9, 5), SourceCounts(8, 3), SourceCounts(1, 0))
    assert counts.total == SourceCounts(18, 8)
    assert counts.tokens_per_step(10) == 5.0
    assert DraftCounts().tokens_per_step(10) == 1.0
    assert DraftCounts().tokens_per_step(0) == 0.0
    assert (counts + counts).by_source["lookup"] == SourceCounts(16, 6)
