"""Find stop sequences in text that arrives in pieces. Knows no tokens and no events.

The sequence that is complete first wins, and of those that end at the same character the longest,
so the result does not depend on how the text is split. Text that may be the beginning of a sequence
is delayed.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scanned:
    text: str  # no part of a sequence
    matched: str | None = None  # the sequence that ended the text


class StopScanner:
    """Owns the delayed text of one answer."""

    def __init__(self, sequences: tuple[str, ...]) -> None:
        self._sequences = sequences
        self._max_length = max(map(len, sequences), default=0)
        self._delayed = ""

    def feed(self, piece: str) -> Scanned:
        """Scan the next piece. Must not be called after a match."""
        if not self._sequences:
            return Scanned(piece)
        text = self._delayed + piece
        if found := self._first_match(text):
            start, sequence = found
            return Scanned(text[:start], sequence)
        settled = len(text) - self._partial_length(text)
        self._delayed = text[settled:]
        return Scanned(text[:settled])

    def flush(self) -> str:
        """Return the delayed text at the end of a text without a match."""
        delayed, self._delayed = self._delayed, ""
        return delayed

    def _first_match(self, text: str) -> tuple[int, str] | None:
        """Return start and text of the sequence that ends first."""
        found = [
            (start + len(sequence), start, sequence)
            for sequence in self._sequences
            if (start := text.find(sequence)) >= 0
        ]
        if not found:
            return None
        _, start, sequence = min(found)
        return start, sequence

    def _partial_length(self, text: str) -> int:
        """Return the length of the longest ending that may be the beginning of a sequence."""
        for length in range(min(self._max_length - 1, len(text)), 0, -1):
            if any(sequence.startswith(text[-length:]) for sequence in self._sequences):
                return length
        return 0
