"""A sequence's sources are asked together, within the answer's limit and the longest draft."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pensieve.engine.speculation.draft_source import FAR_DRAFTS, NO_DRAFT, Proposal
from pensieve.engine.speculation.drafter import Drafter


@dataclass
class Endless:
    known: list[int] = field(default_factory=list)

    def extend(self, tokens: Sequence[int]) -> None:
        self.known += tokens

    def propose(self, after: Sequence[int], max_tokens: int) -> Proposal:
        return Proposal("endless", (len(self.known),) * max_tokens)


def test_every_source_gets_the_known_tokens() -> None:
    sources = [Endless(), Endless()]
    drafter = Drafter(sources)
    drafter.extend([4, 5])
    drafter.extend([6])
    assert [source.known for source in sources] == [[4, 5, 6]] * 2
    assert drafter.propose(0, 2).tokens == (3, 3)


def test_draft_has_the_guesses_and_at_most_the_longest_draft() -> None:
    drafter = Drafter([Endless()])
    assert len(drafter.propose(1, 5)) == 6
    assert len(drafter.propose(0, 5)) == 5
    assert len(drafter.propose(1, 500)) == FAR_DRAFTS + 1


def test_empty_purse_and_missing_sources_propose_nothing() -> None:
    assert Drafter().propose(1, 5) == NO_DRAFT
    drafter = Drafter([Endless()])
    drafter.ledger.purse = 0.0
    assert drafter.propose(1, 5) == NO_DRAFT
