"""Index of a sequence and of texts that it may copy: proposes what followed the longest match.

The texts ("shadows") are never fed to the model: a file without the line numbers that the prompt
has, or as JSON escapes it. As in LZ77, places after equal token pairs are chained, newest first.
Two cores, 2026-11-30: 0.2 us a token of a prompt, 0.7 us a single one, 5 us a proposal, 58 B a
token (benchmarks/speculation_simulation.py).
"""

from array import array
from collections.abc import Iterable, Sequence

from pensieve.engine.speculation.draft_source import Proposal

MIN_MATCH = 2
# Longer matches count as equal: a copy continues, otherwise the newest one is used.
MAX_MATCH = 32
# Places compared for a proposal, in the sequence and in the shadows each.
MAX_CANDIDATES = 16
# Precede and follow texts. Equal to no token, and those of shadows not to that of the sequence.
_SEQUENCE_EDGE, _SHADOW_EDGE = -1, -2


class LookupIndex:
    """Owned by one sequence. A draft source."""

    def __init__(
        self,
        vocabulary: int,
        shadows: Iterable[Sequence[int]] = (),
        max_candidates: int = MAX_CANDIDATES,
    ) -> None:
        """Shadows: later ones are preferred. Raises ValueError for ids not in the vocabulary."""
        self._vocabulary = vocabulary
        self._sequence = _PairChains(vocabulary, _SEQUENCE_EDGE, max_candidates)
        self._shadows = _PairChains(vocabulary, _SHADOW_EDGE, max_candidates)
        for shadow in shadows:
            self._check(shadow)
            self._shadows.extend(shadow)
            self._shadows.end_text()

    def extend(self, tokens: Sequence[int]) -> None:
        """Add the sequence's next tokens. Raises ValueError for ids not in the vocabulary."""
        self._check(tokens)
        self._sequence.extend(tokens)

    def propose(self, after: Sequence[int], max_tokens: int) -> Proposal:
        end = len(self._sequence.tokens) + len(after)
        tail = [*self._sequence.last(MAX_MATCH), *after][-MAX_MATCH:]
        if len(tail) < MIN_MATCH:
            return Proposal("lookup")
        length, place = self._sequence.match(tail, end)
        if length == len(tail):
            return Proposal("lookup", self._repeated(place, after, max_tokens), length)
        shadow_length, shadow_place = self._shadows.match(tail, end)
        if shadow_length > length:
            copied = self._shadows.text_from(shadow_place, max_tokens)
            return Proposal("shadow", tuple(copied), shadow_length)
        return Proposal("lookup", self._repeated(place, after, max_tokens), length)

    def _repeated(self, place: int, after: Sequence[int], max_tokens: int) -> tuple[int, ...]:
        """Return what followed `place`; beyond the sequence's end, the same once more."""
        if not place:
            return ()
        copied = self._sequence.tokens[place : place + max_tokens]
        if len(copied) < max_tokens:
            period = [*copied, *after]
            copied = (period * (max_tokens // len(period) + 1))[:max_tokens]
        return tuple(copied)

    def _check(self, tokens: Sequence[int]) -> None:
        # An id that the model does not have is a segmentation fault in its embedding on a CPU.
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._vocabulary:
            raise ValueError(f"token ids outside the model's vocabulary of {self._vocabulary}")


class _PairChains:
    """Texts, and for each place in them the one before that follows the same pair of tokens."""

    def __init__(self, vocabulary: int, edge: int, max_candidates: int) -> None:
        self.tokens = [edge]
        self._vocabulary, self._edge, self._max_candidates = vocabulary, edge, max_candidates
        # By place: the previous place after the same pair; 0 for none.
        self._previous = array("i", (0, 0))
        self._newest: dict[int, int] = {}  # by pair
        self._last = edge
        # From the place after the last match to the sequence's end then: where a copy continues.
        # A search may miss it among the many places of a frequent pair.
        self._distance: int | None = None

    def extend(self, tokens: Iterable[int]) -> None:
        texts, previous, newest = self.tokens, self._previous, self._newest
        last, place = self._last * self._vocabulary, len(texts)
        for token in tokens:
            texts.append(token)
            place += 1
            # Negative, and so never looked up, for the first token of a text.
            pair = last + token
            previous.append(newest.get(pair, 0))
            newest[pair] = place
            last = token * self._vocabulary
        self._last = texts[-1]

    def last(self, count: int) -> list[int]:
        return self.tokens[max(1, len(self.tokens) - count) :]

    def end_text(self) -> None:
        self.tokens.append(self._edge)
        self._previous.append(0)
        self._last = self._edge

    def match(self, tail: Sequence[int], end: int) -> tuple[int, int]:
        """Return the length of the longest match of the end of `tail`, and the place after it.

        end: of the sequence, where `tail` ends. (0, 0): there is no match.
        """
        match = self._continued(tail, end)
        if match[0] < len(tail):
            match = self._searched(tail, end, match)
        if match[0]:
            self._distance = end - match[1]
        return match

    def _continued(self, tail: Sequence[int], end: int) -> tuple[int, int]:
        """Return the match where the copy of before continues."""
        place = end - self._distance if self._distance is not None else 0
        if not 0 < place < len(self.tokens) or not self._has_text_after(place, end):
            return 0, 0
        length = _common_suffix(self.tokens, place, tail)
        return (length, place) if length >= MIN_MATCH else (0, 0)

    def _searched(self, tail: Sequence[int], end: int, found: tuple[int, int]) -> tuple[int, int]:
        """Return the longest match after the last pair of `tail`, or `found` if none is longer."""
        texts, previous, (longest, best) = self.tokens, self._previous, found
        place = self._newest.get(tail[-2] * self._vocabulary + tail[-1], 0)
        for _ in range(self._max_candidates):
            if not place or longest == len(tail):
                break
            # Most candidates differ where they would have to exceed the longest one.
            if texts[place - 1 - longest] == tail[-1 - longest]:
                length = _common_suffix(texts, place, tail)
                if length > longest and self._has_text_after(place, end):
                    longest, best = length, place
            place = previous[place]
        return longest, best

    def text_from(self, place: int, max_tokens: int) -> list[int]:
        """Return the tokens from `place` to the end of its text."""
        copied = self.tokens[place : place + max_tokens]
        return copied[: copied.index(self._edge)] if self._edge in copied else copied

    def _has_text_after(self, place: int, end: int) -> bool:
        # Drafts of other sources may follow the sequence's last token.
        return self.tokens[place] >= 0 if place < len(self.tokens) else place < end


def _common_suffix(texts: Sequence[int], end: int, tail: Sequence[int]) -> int:
    """Return how many tokens before `end` are the last ones of `tail`."""
    if texts[end - len(tail) : end] == tail:
        return len(tail)
    length = 1
    while texts[end - length] == tail[-length]:
        length += 1
    return length - 1
