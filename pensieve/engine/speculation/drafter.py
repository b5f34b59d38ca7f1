"""One sequence's drafts: its sources, asked in order, and what drafts gave it so far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pensieve.engine.generation import Generation
from pensieve.engine.pictures import text_tokens
from pensieve.engine.speculation.draft_source import (
    FAR_DRAFTS,
    Draft,
    DraftHead,
    DraftSource,
    Proposal,
    combine,
)
from pensieve.engine.speculation.lookup_index import LookupIndex
from pensieve.engine.speculation.policy import Policy
from pensieve.engine.speculation.row_ledger import RowLedger


@dataclass(frozen=True, slots=True)
class Drafter:
    """Owned by one sequence. Without sources it has no drafts."""

    sources: Sequence[DraftSource] = ()
    ledger: RowLedger = field(default_factory=RowLedger)

    def extend(self, tokens: Sequence[int]) -> None:
        """Add the sequence's next known tokens."""
        for source in self.sources:
            source.extend(tokens)

    def propose(self, guesses: int, max_tokens: int) -> Draft:
        """Propose at most `max_tokens` tokens after `guesses` of tokens that are not read yet."""
        if self.ledger.purse <= 0:
            return Draft()
        return combine(self.sources, guesses + min(max_tokens, FAR_DRAFTS))


@dataclass(frozen=True, slots=True)
class ForcedTokens:
    """A draft source: what the answer's grammar forces. Comes before other sources."""

    forced: Callable[[], list[int]]  # after the known tokens, which the grammar gets elsewhere

    def extend(self, tokens: Sequence[int]) -> None:
        pass

    def propose(self, after: Sequence[int], max_tokens: int) -> Proposal:
        return Proposal("grammar", tuple(self.forced()[:max_tokens]), is_certain=True)


@dataclass(frozen=True, slots=True)
class Speculation:
    """What a batch needs for drafts. Owned by a worker; outlives its batches."""

    policy: Policy
    # The drafts of a new sequence, whose prompt its sources know.
    drafter_of: Callable[[Generation], Drafter]
    head: DraftHead | None = None  # has drafts for lone sequences


def lookup_drafter(vocabulary: int, generation: Generation) -> Drafter:
    """Return drafts that are looked up in the prompt, the answer and the generation's hints.

    Hints with tokens that the model does not have are ignored.
    """
    hints = [hint for hint in generation.hints if _are_below(vocabulary, hint)]
    index = LookupIndex(vocabulary, hints)
    index.extend(text_tokens(generation.prompt_tokens, generation.pictures))
    return Drafter([index])


def _are_below(vocabulary: int, tokens: Sequence[int]) -> bool:
    return not tokens or 0 <= min(tokens) <= max(tokens) < vocabulary
