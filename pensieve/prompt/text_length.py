"""How long a text is that is far too long for the model, without tokenizing all of it.

Millions of tokens take seconds and gigabytes to make, and nothing is generated from them. A client wants to know that the
prompt is too long, and by about how much.
"""

import math
from collections.abc import Callable
from random import Random

# A text with fewer letters for each token of the context is tokenized whole: it may fit, and costs little more than one that does.
CHARS_PER_TOKEN = 8
PIECE_CHARS = 100_000
# Of a piece, cut out of its text, more than of the same letters within it.
_MORE_BY_CUTTING = 8


def length_beyond(text: str, most_tokens: int, count: Callable[[str], int]) -> int | None:
    """About how many tokens `text` is, where that is surely more than `most_tokens`; else None. `count` counts a text's.

    Pieces from all over the text are counted until there are too many.
    """
    if len(text) <= most_tokens * CHARS_PER_TOKEN:
        return None
    starts = list(range(0, len(text), PIECE_CHARS))
    Random(0).shuffle(starts)  # noqa: S311 -- a sample, the same each time
    tokens = letters = 0
    for start in starts:
        piece = text[start : start + PIECE_CHARS]
        tokens += max(0, count(piece) - _MORE_BY_CUTTING)
        letters += len(piece)
        if tokens > most_tokens:
            return math.ceil(tokens * (len(text) / letters))
    return None
