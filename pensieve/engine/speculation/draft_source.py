"""Drafts: tokens that a step verifies next to the one that it computes anyway, and their sources.

A source is a lookup, a grammar's forced tokens, or a model's MTP head. engine/model feeds the
combined draft; policy.py decides on its length.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pensieve.engine.generation import DraftCounts

# Of Metal's matrix product: up to here all steps beyond the near ones cost the same.
TILE_ROWS = 32
FAR_DRAFTS = TILE_ROWS - 1
HEAD = "mtp"  # source of the tokens of a `DraftHead`


@dataclass(frozen=True, slots=True)
class Proposal:
    """Tokens of one source."""

    source: str  # a field of `DraftCounts`
    tokens: tuple[int, ...] = ()
    # Preceding tokens that were found elsewhere, followed by these; 0 without a search.
    match_length: int = 0
    is_certain: bool = False  # nothing else can be drawn there: a grammar's forced tokens


class DraftSource(Protocol):
    def extend(self, tokens: Sequence[int]) -> None:
        """Add the sequence's next known tokens."""
        ...

    def propose(self, after: Sequence[int], max_tokens: int) -> Proposal:
        """Propose what follows the sequence's known tokens and `after`, drafts of other sources."""
        ...


class DraftHead(Protocol):
    """Predicts the token after the next, by what the model computed for the next one.

    Arrays are MLX's. A pair is the hidden state after a token, and the token that follows it.
    """

    def make_cache(self) -> Any:
        """Return an empty cache of pairs."""
        ...

    def draft(self, hidden: Any, tokens: Any, cache: Any) -> Any:
        """Add pairs to the cache: hidden states [1, pairs, values] and tokens [1, pairs].

        Return the token [1] that is likely to follow the last one.
        """
        ...


@dataclass(frozen=True, slots=True)
class Draft:
    """Consecutive proposals. All but the last are certain."""

    proposals: tuple[Proposal, ...] = ()

    def __len__(self) -> int:
        return sum(len(proposal.tokens) for proposal in self.proposals)

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for proposal in self.proposals for token in proposal.tokens)

    @property
    def certain_tokens(self) -> int:
        return sum(len(proposal.tokens) for proposal in self.proposals if proposal.is_certain)

    @property
    def match_length(self) -> int:
        """Of the uncertain tokens; 0 if there are none."""
        uncertain = (one.match_length for one in self.proposals if not one.is_certain)
        return next(uncertain, 0)

    @property
    def is_by_head(self) -> bool:
        return any(one.source == HEAD for one in self.proposals)

    def first(self, count: int) -> "Draft":
        return self._between(0, count)

    def without_first(self, count: int) -> "Draft":
        """Return the draft after `count` tokens that turned out to be as proposed.

        The first token of a draft for a sequence whose last token is still on the device is a guess
        of that token.
        """
        return self._between(count, len(self))

    def counts(self, accepted: int) -> DraftCounts:
        return DraftCounts.of(self.drafted_by_source(), self.accepted_by_source(accepted))

    def accepted_by_source(self, accepted: int) -> dict[str, int]:
        """Return how many of the first `accepted` tokens are from which source."""
        return self.first(accepted).drafted_by_source()

    def drafted_by_source(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for proposal in self.proposals:
            counts[proposal.source] = counts.get(proposal.source, 0) + len(proposal.tokens)
        return counts

    def _between(self, start: int, end: int) -> "Draft":
        kept: list[Proposal] = []
        for proposal in self.proposals:
            tokens = proposal.tokens[max(0, start) : max(0, end)]
            start, end = start - len(proposal.tokens), end - len(proposal.tokens)
            if tokens:
                kept.append(replace(proposal, tokens=tokens))
        return Draft(tuple(kept))


NO_DRAFT = Draft()


def combine(sources: Iterable[DraftSource], max_tokens: int) -> Draft:
    """Ask the sources in order: each continues the certain tokens of those before it.

    The first source with uncertain tokens ends the draft.
    """
    proposals: list[Proposal] = []
    tokens: tuple[int, ...] = ()
    for source in sources:
        left = max_tokens - len(tokens)
        if left <= 0:
            break
        proposal = source.propose(tokens, left)
        if proposal.tokens:
            proposals.append(replace(proposal, tokens=proposal.tokens[:left]))
            tokens += proposals[-1].tokens
            if not proposal.is_certain:
                break
    return Draft(tuple(proposals))
