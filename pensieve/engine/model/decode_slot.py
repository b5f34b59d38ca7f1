# pyright: basic
"""One sequence of a decode batch, and what becomes of its drafts in one pass.

Used by decode_batch.py, which feeds the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.generation import FinishReason, Logprobs, Sampling
from pensieve.engine.grammar.mask import TokenMask
from pensieve.engine.model.logits.adjustments import (
    RECENT_TOKENS,
    AnswerPenalties,
    LogitBias,
    without_repetition,
)
from pensieve.engine.model.logits.logprobs import RowLogprobs
from pensieve.engine.model.logits.sampling import Sampler
from pensieve.engine.speculation.acceptance import accept
from pensieve.engine.speculation.draft_source import FAR_DRAFTS, NO_DRAFT, Draft
from pensieve.engine.speculation.drafter import Drafter
from pensieve.engine.speculation.policy import Row


@dataclass(slots=True)
class DecodeSlot:
    """One sequence in the batch."""

    key: int
    tokens: list[int]  # that its caches hold
    max_tokens: int
    stop_tokens: frozenset[int]
    sampler: Sampler
    mask: TokenMask | None = None
    # Copies of untrimmable layers: by token count, then by layer.
    checkpoints: dict[int, dict[int, Any]] = field(default_factory=dict[int, dict[int, Any]])
    sampled: int = 0
    answer_start: int = 0  # where the answer begins in `tokens`
    sampling: Sampling = field(default_factory=Sampling)  # for its bias and penalties
    top_logprobs: int | None = None  # None: tokens are reported without logprobs
    drafter: Drafter = field(default_factory=Drafter)
    # After `tokens`, dropped from the caches with refused drafts: fed again before the last one.
    again: list[int] = field(default_factory=list[int])
    # The answer's last token, not fed yet, once it was read.
    last: int | None = None
    # In the first row, of the token that was drawn last, until it is read.
    last_logprobs: RowLogprobs | None = None
    _bias: LogitBias | None = field(default=None, init=False)
    _penalties: AnswerPenalties | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.sampling.logit_bias:
            self._bias = LogitBias(self.sampling.logit_bias)
        if self.sampling.counts_answer:
            self._penalties = AnswerPenalties(self.sampling)

    @property
    def is_adjusted(self) -> bool:
        parts = (self.mask, self._bias, self._penalties)
        return self.sampling.repetition_penalty != 1 or any(part is not None for part in parts)

    def position_after(self, fed: int) -> int:
        """Return the position in the answer of the token after the known ones and `fed` more."""
        return self._length + fed - self.answer_start

    @property
    def guesses(self) -> int:
        """Return how many tokens of a draft are guesses of tokens that are not read yet."""
        return 1 if self.last is None else 0

    @property
    def max_drafts(self) -> int:
        left = self.max_tokens - self.sampled - self.guesses - 1
        return min(left, FAR_DRAFTS - len(self.again))  # all are one pass

    def propose(self) -> Draft:
        """Propose drafts, with a guess of the last token before them unless it was read."""
        left = self.max_drafts
        return self.valid(self.drafter.propose(self.guesses, left)) if left > 0 else NO_DRAFT

    def valid(self, draft: Draft) -> Draft:
        """Return what the answer's grammar allows of a draft."""
        if self.mask is not None and len(draft) > self.guesses:
            draft = draft.first(self.mask.valid(draft.tokens))
        return draft if len(draft) > self.guesses else NO_DRAFT

    def adjusted(self, fed: mx.array, logits: mx.array) -> mx.array:
        """Apply bias and penalties to the logits after the last of the `fed` tokens."""
        if self._bias is not None:
            logits = self._bias(logits)
        if (penalty := self.sampling.repetition_penalty) != 1:
            recent = self._known(max(0, self._length - RECENT_TOKENS))
            recent = [token for token in recent if token >= 0]  # others are of pictures
            logits = without_repetition(logits, recent, fed, penalty)
        if self._penalties is not None:
            known = self._known(self.answer_start + self._penalties.counted)
            of_answer = min(len(fed), self.position_after(len(fed)))
            logits = self._penalties(logits, known, fed[len(fed) - of_answer :])
        return logits

    def note_drawn(self, logits: mx.array, drawn: mx.array) -> tuple[mx.array, ...]:
        """Return what must be computed next to the last token, drawn after the model's logits."""
        if self.top_logprobs is None:
            return ()
        self.last_logprobs = RowLogprobs.of(logits, drawn, self.top_logprobs)
        return self.last_logprobs.arrays

    @property
    def _length(self) -> int:
        return len(self.tokens) + len(self.again)

    def _known(self, position: int) -> list[int]:
        """Return the known tokens from a position on."""
        return [*self.tokens[position:], *self.again[max(0, position - len(self.tokens)) :]]


@dataclass(slots=True)
class SlotPass:
    """One sequence in one pass."""

    slot: DecodeSlot
    start: int  # of its rows
    again: list[int]  # fed before the last token
    is_fed_again: bool  # what stays of the pass, after refused drafts
    guess: int | None = None  # of its last token; None: no drafts, or the token was read before
    draft: Draft = NO_DRAFT  # fed after the last token
    accepted: int = 0  # drafts
    has_chance: bool = False  # the drafts follow the last token
    is_awaited: bool = False  # the next draft needs the token that the pass draws
    usable: int | None = None  # drafts that may be accepted; None: all
    new: list[int] = field(default_factory=list[int])  # tokens of the answer
    new_logprobs: list[Logprobs] = field(default_factory=list[Logprobs])
    logprobs: RowLogprobs | None = None  # of what is drawn after the last token and the drafts
    finish: FinishReason | None = None

    def propose(self) -> None:
        draft = self.slot.propose()
        if self.slot.last is None and len(draft):
            self.guess, draft = draft.tokens[0], draft.without_first(1)
        self.draft = draft

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + 1 + len(self.draft))

    @property
    def is_verified(self) -> bool:
        return (self.has_chance or self.is_awaited) and self.finish is None

    @property
    def account(self) -> Row:
        again = len(self.again)
        return Row(self.slot.drafter.ledger, self.draft, self.accepted, again, self.is_fed_again)

    def note_last(self, token: int | None) -> None:
        """Record the last token. None: it was read before."""
        if token is not None:
            self._take((), [token], self.slot.last_logprobs)
        self.has_chance = bool(len(self.draft)) and self.guess in {None, self.slot.last}

    def hold_last(self) -> None:
        """The caches hold the last token now."""
        assert self.slot.last is not None
        self.slot.tokens += [*self.again, self.slot.last]
        self.slot.again, self.slot.last = [], None
        self.slot.last_logprobs = self.logprobs

    def drop(self) -> int:
        """The caches are as before the pass; return how many tokens they lost.

        Those that stay in the answer are fed again.
        """
        tokens = self.slot.tokens
        held = len(tokens) - len(self.again) - 1 - self.accepted
        self.slot.again = tokens[held:]
        del tokens[held:]
        return len(self.again) + 1 + len(self.draft)

    def adjusted(self, fed: mx.array, logits: mx.array) -> mx.array:
        """Apply what the sequence adjusts, and its mask, to its rows of the logits after `fed`."""
        slot = self.slot
        logits = slot.adjusted(fed[self.rows], logits[self.rows])
        if slot.mask is None or self.finish is not None:
            return logits
        logits, self.usable = slot.mask(logits, self._chances)
        return logits

    def note_drawn(self, logits: mx.array, drawn: mx.array) -> tuple[mx.array, ...]:
        """Return what must be computed next to the tokens drawn after the model's logits."""
        if self.slot.top_logprobs is None:
            return ()
        rows = self.rows
        self.logprobs = RowLogprobs.of(logits[rows], drawn[rows], self.slot.top_logprobs)
        return self.logprobs.arrays

    @property
    def _chances(self) -> tuple[int, ...]:
        return self.draft.tokens[: self.usable] if self.has_chance else ()

    def verify(self, drawn: Sequence[int]) -> None:
        """Record the tokens that were drawn after the last token and each draft."""
        drafts = self._chances
        self._take(drafts, drawn[: len(drafts) + 1], self.logprobs)
        self.slot.tokens.extend(self.new[-1 - self.accepted : -1])

    def _take(
        self, drafts: Sequence[int], drawn: Sequence[int], logprobs: RowLogprobs | None
    ) -> None:
        slot = self.slot
        result = accept(drafts, drawn, slot.stop_tokens, slot.max_tokens - slot.sampled)
        slot.sampled += len(result.tokens)
        slot.last = result.tokens[-1]
        slot.drafter.extend(result.tokens)
        if slot.mask is not None:
            slot.mask.extend(result.tokens)
        self.new += result.tokens
        if logprobs is not None:
            self.new_logprobs += logprobs.read(len(result.tokens))
        self.accepted, self.finish = result.drafts, result.finish
