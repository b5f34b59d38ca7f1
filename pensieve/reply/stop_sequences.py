"""Stop sequences found in text that arrives in pieces. Plain text in, plain text out; no tokens, no events.

The sequence that is complete first wins, and of those complete at the same letter the longest, so what comes out
does not depend on where the pieces were cut. Text that may yet become a sequence is held back.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scanned:
    """Text that is certain now, and the sequence that ended the text, if one did."""

    text: str
    matched: str | None = None


class StopScanner:
    """Owns the text held back of one answer."""

    def __init__(self, sequences: tuple[str, ...]) -> None:
        self._sequences = sequences
        self._longest = max(map(len, sequences), default=0)
        self._held = ""

    def feed(self, piece: str) -> Scanned:
        """Take the next piece. After a match nothing more is to be fed."""
        if not self._sequences:
            return Scanned(piece)
        text = self._held + piece
        if found := self._first_match(text):
            start, sequence = found
            return Scanned(text[:start], sequence)
        certain = len(text) - self._possible_start(text)
        self._held = text[certain:]
        return Scanned(text[:certain])

    def flush(self) -> str:
        """What was held back, once the text has ended without a match."""
        held, self._held = self._held, ""
        return held

    def _first_match(self, text: str) -> tuple[int, str] | None:
        """The start and the sequence whose end comes first."""
        found = [
            (start + len(sequence), start, sequence)
            for sequence in self._sequences
            if (start := text.find(sequence)) >= 0
        ]
        if not found:
            return None
        _, start, sequence = min(found)
        return start, sequence

    def _possible_start(self, text: str) -> int:
        """How many letters at the end may be a sequence's beginning."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(sequence.startswith(text[-length:]) for sequence in self._sequences):
                return length
        return 0
