# pyright: basic
"""Bias and penalties: what a request adds to its logits before the grammar's mask.

Used by decode_slot.py. In this order: the bias, the penalty of recent tokens, those of the answer's
tokens. The tokens before a row may still be on the device; none of this waits for them.
"""

from collections.abc import Sequence

import mlx.core as mx  # noqa: TID253

from pensieve.engine.generation import Sampling

# How many of the newest tokens are penalized: mlx-lm's default (0.32.2, `make_repetition_penalty`).
RECENT_TOKENS = 20


class LogitBias:
    """Adds a number to the logits of some tokens."""

    def __init__(self, biases: Sequence[tuple[int, float]]) -> None:
        self._tokens = mx.array([token for token, _ in biases])
        self._biases = mx.array([bias for _, bias in biases])

    def __call__(self, logits: mx.array) -> mx.array:
        return logits.astype(mx.float32).at[:, self._tokens].add(self._biases)


def without_repetition(
    logits: mx.array, earlier: list[int], fed: mx.array, penalty: float
) -> mx.array:
    """Return logits [rows, vocabulary] in which recent tokens are less likely.

    `fed` [tokens] follow `earlier`, and the logits the last of them. A positive logit is divided by
    `penalty`, a negative one multiplied (https://arxiv.org/abs/1909.05858). As in mlx-lm, and
    unlike transformers, only the last `RECENT_TOKENS` of prompt and answer count: over a whole
    prompt every name in an agent's files would be penalized.
    """
    rows = logits.shape[0]
    ends = range(len(fed) - rows + 1, len(fed) + 1)
    pairs = zip(ends, mx.split(logits, rows), strict=True)
    return mx.concatenate([_lowered(row, earlier, fed[:end], penalty) for end, row in pairs])


def _lowered(row: mx.array, earlier: list[int], newest: mx.array, penalty: float) -> mx.array:
    newest = newest[-RECENT_TOKENS:]
    missing = RECENT_TOKENS - len(newest)
    before = mx.array(earlier[-missing:] if missing else [], dtype=newest.dtype)
    recent = mx.concatenate([before, newest])[None]
    current = mx.take_along_axis(row, recent, axis=-1)
    lowered = mx.where(current < 0, current * penalty, current / penalty)
    # A repeated token is written twice with the same value.
    return mx.put_along_axis(row, recent, lowered, axis=-1)


class AnswerPenalties:
    """OpenAI's frequency and presence penalties of one answer. Owns the counts of its tokens.

    Source: https://platform.openai.com/docs/api-reference (parameter details).
    """

    def __init__(self, sampling: Sampling) -> None:
        self._frequency = sampling.frequency_penalty
        self._presence = sampling.presence_penalty
        self._counts: mx.array | None = None  # [vocabulary]
        self.counted = 0  # first tokens of the answer

    def __call__(self, logits: mx.array, known: list[int], fed: mx.array) -> mx.array:
        """Return logits [rows, vocabulary] after the last of the `fed` tokens of the answer.

        known: the answer's tokens before those, from `counted` on. They are counted for good; fed
        ones may be refused drafts, and each row counts those before it.
        """
        rows, vocabulary = logits.shape
        counts = self._count(known, vocabulary)
        ends = range(len(fed) - rows + 1, len(fed) + 1)
        begun, penalized = 0, []
        for end, row in zip(ends, mx.split(logits, rows), strict=True):
            counts, begun = _with(counts, fed[begun:end]), end
            lowered = self._frequency * counts + self._presence * (counts > 0)
            penalized.append(row.astype(mx.float32) - lowered)
        return mx.concatenate(penalized)

    def _count(self, known: list[int], vocabulary: int) -> mx.array:
        counts = mx.zeros(vocabulary) if self._counts is None else self._counts
        self._counts = _with(counts, mx.array(known, dtype=mx.uint32))
        self.counted += len(known)
        return self._counts


def _with(counts: mx.array, tokens: mx.array) -> mx.array:
    return counts.at[tokens].add(1.0) if len(tokens) else counts
