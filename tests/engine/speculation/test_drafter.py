"""A sequence's sources are asked together, within the answer's limit and the longest draft."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pensieve.engine.generation import Generation
from pensieve.engine.speculation.draft_source import FAR_DRAFTS, NO_DRAFT, Proposal
from pensieve.engine.speculation.drafter import Drafter, lookup_drafter


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


def test_lookup_drafter_copies_from_prompt_answer_and_hints_of_the_models_tokens() -> None:
    hints = ((40, 41, 42, 43, 44), (40, 41, 42, 900))
    drafter = lookup_drafter(100, Generation((1, 2, 3, 4, 1, 2), 9, hints=hints))
    assert drafter.propose(0, 2).tokens == (3, 4)
    drafter.extend([40, 41, 42])
    assert drafter.propose(0, 9).tokens == (43, 44)
    assert drafter.propose(0, 9).drafted_by_source() == {"shadow": 2}
