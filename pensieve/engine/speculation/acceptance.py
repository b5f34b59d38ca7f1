"""Which tokens of a step with drafts belong to the answer.

Each position is drawn from the distribution after the drafts before it. Drafts are kept while they
equal what was drawn, so the answer has the tokens, and their distribution, of an answer without
drafts.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pensieve.engine.generation import FinishReason


@dataclass(frozen=True, slots=True)
class Accepted:
    tokens: tuple[int, ...]  # at least one; a stop token is the last one
    finish: FinishReason | None = None

    @property
    def drafts(self) -> int:
        """The drafts whose KV state stays: the last token is fed by the next step."""
        return len(self.tokens) - 1


def accept(
    drafts: Sequence[int], drawn: Sequence[int], stop_tokens: Collection[int], max_tokens: int
) -> Accepted:
    """Return the answer's next tokens.

    drawn: one token more than drafts. max_tokens: that the answer may still have, at least 1.
    """
    equal = _equal_tokens(drafts, drawn)
    tokens = tuple(drawn[: min(equal + 1, max_tokens)])
    stop = next((at for at, token in enumerate(tokens) if token in stop_tokens), None)
    if stop is not None:
        return Accepted(tokens[: stop + 1], "stop_token")
    return Accepted(tokens, "length" if len(tokens) == max_tokens else None)


def _equal_tokens(drafts: Sequence[int], drawn: Sequence[int]) -> int:
    pairs = enumerate(zip(drafts, drawn, strict=False))
    return next((at for at, (draft, token) in pairs if draft != token), len(drafts))
