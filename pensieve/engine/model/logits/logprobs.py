# pyright: basic
"""Logarithmic probabilities of the tokens that were drawn, and of the likeliest ones.

Used by decode_slot.py for sequences that report them. They are those of the model, whatever the
tokens were drawn from.
"""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.generation import Logprobs

# In place of -inf, which JSON does not have: OpenAI's.
_MIN_LOGPROB = -9999.0


@dataclass(frozen=True, slots=True)
class RowLogprobs:
    """Of one sequence's rows of a pass; the device may still compute them."""

    drawn: mx.array  # [rows]
    top_tokens: mx.array  # [rows, count], in any order
    top: mx.array  # theirs

    @classmethod
    def of(cls, logits: mx.array, drawn: mx.array, count: int) -> "RowLogprobs":
        """logits: [rows, vocabulary], of the model. drawn: token ids [rows]. count: how many of the
        likeliest tokens.
        """
        logits = logits.astype(mx.float32)
        total = mx.logsumexp(logits, axis=-1, keepdims=True)
        top_tokens = _top_tokens(logits, min(count, logits.shape[-1]))
        return cls(
            (mx.take_along_axis(logits, drawn[:, None], axis=-1) - total)[:, 0],
            top_tokens,
            mx.take_along_axis(logits, top_tokens, axis=-1) - total,
        )

    @property
    def arrays(self) -> tuple[mx.array, ...]:
        return self.drawn, self.top_tokens, self.top

    def read(self, rows: int) -> list[Logprobs]:
        """Wait for the first rows."""
        columns: Any = [array[:rows].tolist() for array in self.arrays]
        return [_logprobs(*row) for row in zip(*columns, strict=True)]


def _top_tokens(logits: mx.array, count: int) -> mx.array:
    if not count:
        return mx.zeros((logits.shape[0], 0), dtype=mx.uint32)
    first = logits.shape[-1] - count
    return mx.argpartition(logits, first, axis=-1)[:, first:]


def _logprobs(drawn: float, tokens: list[int], values: list[float]) -> Logprobs:
    pairs = zip(tokens, map(_finite, values), strict=True)
    top = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    return Logprobs(_finite(drawn), tuple(top))


def _finite(logprob: float) -> float:
    # Rounding may make the probability of a token that is alone a little more than 1.
    return min(max(logprob, _MIN_LOGPROB), 0.0)
