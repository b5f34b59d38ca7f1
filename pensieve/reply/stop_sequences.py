"""Stop sequences in the text of an answer; reply.py feeds it."""

from dataclasses import dataclass

from pensieve.reply.answer_parser import settled_length


@dataclass(frozen=True, slots=True)
class Scanned:
    text: str  # no part of a sequence
    matched: str | None = None  # the sequence that ended the text


class StopScanner:
    """Finds stop sequences in text that arrives in pieces; owns the text that may begin one.

    The sequence that is complete first wins, and of those that end at the same character the
    longest, so the result does not depend on how the text is split.
    """

    def __init__(self, sequences: tuple[str, ...]) -> None:
        self._sequences = sequences
        self._delayed = ""

    def feed(self, piece: str) -> Scanned:
        """Scan the next piece. Must not be called after a match."""
        if not self._sequences:
            return Scanned(piece)
        text = self._delayed + piece
        if found := self._first_match(text):
            start, sequence = found
            return Scanned(text[:start], sequence)
        settled = settled_length(text, self._sequences)
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
