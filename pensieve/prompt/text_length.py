"""Estimate the length of a text that is far too long for the model, without tokenizing all of it.

Tokenizing millions of tokens takes seconds and gigabytes, only to refuse the prompt. The client's
error still names about how many tokens there are.
"""

import math
from collections.abc import Callable
from random import Random

# A text with fewer characters per token of the context is tokenized whole: it may fit, and costs
# little more than one that does.
CHARS_PER_TOKEN = 8
PIECE_CHARS = 100_000
# A piece cut from a text can have this many more tokens than the same characters within the text.
_EXTRA_TOKENS_PER_PIECE = 8


def length_beyond(text: str, max_tokens: int, count: Callable[[str], int]) -> int | None:
    """Return about how many tokens `text` has if that surely exceeds `max_tokens`; else None.

    Counts random pieces until they exceed the limit. count: returns a text's number of tokens.
    """
    if len(text) <= max_tokens * CHARS_PER_TOKEN:
        return None
    starts = list(range(0, len(text), PIECE_CHARS))
    Random(0).shuffle(starts)  # noqa: S311 -- a sample, the same each time
    tokens = chars = 0
    for start in starts:
        piece = text[start : start + PIECE_CHARS]
        tokens += max(0, count(piece) - _EXTRA_TOKENS_PER_PIECE)
        chars += len(piece)
        if tokens > max_tokens:
            return math.ceil(tokens * (len(text) / chars))
    return None
