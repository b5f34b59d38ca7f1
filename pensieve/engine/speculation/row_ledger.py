"""What drafts gave and cost one sequence so far."""

from dataclasses import dataclass, field

from pensieve.engine.speculation.draft_source import FAR_DRAFTS, Draft

# In plain steps of the sequence. Each token of the answer adds `PURSE_PER_TOKEN`, each accepted
# draft 1; drafts take out what they lengthened the step by. While it is empty there are no drafts,
# so they delay an answer by 1.5 % and one wide step at most; two where refused drafts make the next
# step feed tokens again.
PURSE_START = 1.0
PURSE_PER_TOKEN = 0.015
PURSE_CAP = 4.0
# Accepted and refused tokens are counted by the length of the match that they follow.
_LENGTHS_PER_CLASS = 4
_LONGEST_CLASS = 24
# Those of an MTP head, by themselves. Heads are right 7 times out of 10 (Qwen3.5, depth 1), which
# an answer believes until it has counted.
_HEAD_CLASS = -1
_HEAD_PRIOR = (7.0, 3.0)
_FADING = 0.95
# Moving averages of what a far draft gives: of far drafts, and of runs that outgrew it.
_FAR_WEIGHT = 0.3
_RUN_WEIGHT = 0.1


@dataclass(slots=True)
class RowLedger:
    far_tokens: float = FAR_DRAFTS / 2  # that a far draft gave lately
    purse: float = PURSE_START
    run: int = 0  # uncertain drafts accepted in a row
    # Fading counts of accepted and refused tokens, by class of match length.
    _counts: dict[int, tuple[float, float]] = field(default_factory=dict[int, tuple[float, float]])

    def chance(self, match_length: int) -> float:
        """Return the probability that a token after such a match is right."""
        accepted, refused = self._counts.get(_length_class(match_length), (0.0, 0.0))
        prior = match_length / 8
        return (accepted + 1.0 + prior) / (accepted + refused + 2.0 + prior)

    @property
    def head_chance(self) -> float:
        """Return the probability that a token of an MTP head is right."""
        accepted, refused = self._counts.get(_HEAD_CLASS, (0.0, 0.0))
        right, wrong = _HEAD_PRIOR
        return (accepted + right) / (accepted + refused + right + wrong)

    def expected_tokens(self, draft: Draft) -> list[float]:
        """Return the expected number of accepted tokens for each length of the draft, from 0."""
        chance, certain = self.chance(draft.match_length), draft.certain_tokens
        expected, right = [0.0], 1.0
        for at in range(len(draft)):
            right *= 1.0 if at < certain else chance
            expected.append(expected[-1] + right)
        return expected

    def note(self, draft: Draft, accepted: int, *, is_far: bool) -> None:
        """Record what became of a draft."""
        certain = draft.certain_tokens
        drafted, accepted = len(draft) - certain, max(0, accepted - certain)
        if not drafted:
            return
        is_refused = accepted < drafted
        if draft.is_by_head:
            self._count(_HEAD_CLASS, accepted, is_refused=is_refused)
            return  # says nothing about copies
        self.run = 0 if is_refused else self.run + accepted
        if not is_far:
            self._count(_length_class(draft.match_length), accepted, is_refused=is_refused)
        elif is_refused or accepted > self.far_tokens:
            # A short draft that was right to its end says nothing about longer ones.
            self.far_tokens += _FAR_WEIGHT * (accepted - self.far_tokens)

    def note_run(self, max_far: int) -> None:
        """Expect more of far drafts while near ones are right for longer."""
        if self.run > self.far_tokens:
            self.far_tokens += _RUN_WEIGHT * (min(self.run, max_far) - self.far_tokens)

    def settle(self, tokens: int, accepted: int, price: float) -> None:
        """Account for a step that added `tokens` to the answer, `accepted` of them drafts."""
        gain = PURSE_PER_TOKEN * tokens + accepted - price
        self.purse = min(PURSE_CAP, self.purse + gain)

    def _count(self, key: int, accepted: int, *, is_refused: bool) -> None:
        right, wrong = self._counts.get(key, (0.0, 0.0))
        self._counts[key] = (_FADING * right + accepted, _FADING * wrong + is_refused)


def _length_class(match_length: int) -> int:
    return min(match_length, _LONGEST_CLASS) // _LENGTHS_PER_CLASS
