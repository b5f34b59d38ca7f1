"""Prompts of a wanted length that no earlier run has sent, so that no cache knows them."""

import random

_WORDS = tuple(
    """
harbour lantern copper meadow winter basket ladder signal morning garden window paper silver bridge
market engine letter candle forest island journal kettle mirror needle orchard pocket quarry river
saddle timber umbrella valley wagon yellow anchor barrel circle dragon estate feather granite hollow
insect jacket knight linen marble nickel olive pebble quiver ribbon sailor tunnel urgent velvet
walnut amber boulder cellar dollar ember fabric glacier hunter iron jungle keeper lemon magnet
""".split()  # noqa: SIM905 -- one word a line would hide the rest
)
_SENTENCE_WORDS = 12
_SAMPLE_WORDS = 300
PROSE = "Write a long story in which all of this plays a part. Do not stop early."
COPY = "Repeat the list above exactly, line by line, and add nothing."


class Prompts:
    """Makes random texts. Owns the tokens per word of the model's tokenizer, once calibrated."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._tokens_per_word = 1.5

    def sample(self) -> str:
        """Return a text by which `calibrate` learns the tokenizer."""
        return self._sentences(_SAMPLE_WORDS)

    def calibrate(self, tokens: int) -> None:
        """tokens: of a `sample`."""
        self._tokens_per_word = max(tokens / _SAMPLE_WORDS, 0.1)

    def prose(self, tokens: int) -> str:
        """Return another text of about so many tokens that asks for a story."""
        words = max(round(tokens / self._tokens_per_word), _SENTENCE_WORDS)
        return f"{self._sentences(words)}\n\n{PROSE}"

    def copying(self, tokens: int) -> str:
        """Return another list of about so many tokens, and the request to repeat it."""
        lines = max(round(tokens / self._tokens_per_word / 4), 4)
        listed = "\n".join(f"- {' '.join(self._source.choices(_WORDS, k=4))}" for _ in range(lines))
        return f"{listed}\n\n{COPY}"

    def _sentences(self, words: int) -> str:
        chosen = self._source.choices(_WORDS, k=words)
        starts = range(0, words, _SENTENCE_WORDS)
        return " ".join(f"The {' '.join(chosen[at : at + _SENTENCE_WORDS])}." for at in starts)
