# pyright: basic
"""Sequences that decode together, a token each in a step, one step ahead of whoever reads the tokens.

The forward pass over the tokens sampled last is on its way to the device before those tokens are read: the device does not
wait for Python, nor Python for the device. mlx-lm's BatchGenerator does the same with more around it, and cannot be
told how long a chunk of a prompt may be. Knows no prompt and no chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.generation import FinishReason
from pensieve.engine.grammar.mask import TokenMask
from pensieve.engine.model.sampling import Sampler, penalized

# MLX keeps buffers of every size it has seen; after so many steps they are given back.
_STEPS_BEFORE_CLEARING = 512


@dataclass(slots=True)
class DecodeSlot:
    """One sequence. tokens: what its caches hold. checkpoints: of layers that cannot be cut back, by tokens."""

    key: int
    tokens: list[int]
    max_tokens: int
    stop_tokens: frozenset[int]
    sampler: Sampler
    mask: TokenMask | None = None
    checkpoints: dict[int, dict[int, Any]] = field(default_factory=dict[int, dict[int, Any]])
    sampled: int = 0
    repetition_penalty: float = 1.0

    @property
    def is_adjusted(self) -> bool:
        """Whether `adjusted` changes anything."""
        return self.mask is not None or self.repetition_penalty != 1

    def adjusted(self, fed: mx.array, logits: mx.array) -> mx.array:
        """The logits [1, vocabulary] after the row's tokens and `fed`, as this row samples."""
        if self.repetition_penalty != 1:
            logits = penalized(logits, self.tokens, fed, self.repetition_penalty)
        return self.mask(fed[-1:], logits) if self.mask else logits

    def take(self, token: int) -> FinishReason | None:
        """`token` was sampled and is in the caches now; why the row ends with it, if it does."""
        self.tokens.append(token)
        self.sampled += 1
        if token in self.stop_tokens:
            return "stop_token"
        return "length" if self.sampled >= self.max_tokens else None


@dataclass(frozen=True, slots=True)
class Step:
    """What one step gave a row. caches: the sequence's own, where the row has left with `finish`."""

    row: DecodeSlot
    token: int
    finish: FinishReason | None = None
    caches: list[Any] | None = None


class DecodeBatch:
    """Owns the rows and their caches, a list with one batch cache for each layer. For one thread."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._caches: list[Any] = []
        # [rows] token ids that are sampled, and not fed to the model yet.
        self._next = mx.array([], dtype=mx.uint32)
        self._steps = 0
        self.rows: list[DecodeSlot] = []

    def add(self, row: DecodeSlot, caches: list[Any], last: Sequence[int]) -> None:
        """Take a row in, whose caches hold all but the `last` tokens of its prompt. caches: batch caches of one row."""
        sampled = self._forward([row], caches, mx.array([last]))
        row.tokens.extend(last)
        if self.rows:
            for ours, new in zip(self._caches, caches, strict=True):
                ours.extend(new)
            self._next = mx.concatenate([self._next, sampled])
        else:
            self._caches, self._next = caches, sampled
        self.rows = [*self.rows, row]

    def step(self) -> list[Step]:
        """The token of each row; the one after it is being computed."""
        if not self.rows:
            return []
        fed = self._next
        self._next = self._forward(self.rows, self._caches, fed[:, None])
        tokens: list[int] = fed.tolist()  # type: ignore[assignment]
        self._steps += 1
        if self._steps % _STEPS_BEFORE_CLEARING == 0:
            mx.clear_cache()
        return self._taken(tokens)

    def caches_of(self, row: DecodeSlot) -> list[Any]:
        """The caches of a row, which hold its tokens."""
        return self._extracted(self.rows.index(row))

    def remove(self, row: DecodeSlot) -> None:
        """Go on without a row."""
        self._keep([at for at, other in enumerate(self.rows) if other is not row])

    def _taken(self, tokens: Sequence[int]) -> list[Step]:
        steps: list[Step] = []
        staying: list[int] = []
        for at, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            finish = row.take(token)
            caches = None
            if finish is None:
                staying.append(at)
            else:
                caches = self._extracted(at)
            steps.append(Step(row, token, finish, caches))
        if len(staying) < len(self.rows):
            self._keep(staying)
        return steps

    def _extracted(self, at: int) -> list[Any]:
        """One row's caches; copies are made now, so that they do not hold the arrays of all rows for as long as they rest."""
        caches = [cache.extract(at) for cache in self._caches]
        mx.async_eval([cache.state for cache in caches])
        return caches

    def _keep(self, places: list[int]) -> None:
        self.rows = [self.rows[at] for at in places]
        if not places:
            self._caches, self._next = [], mx.array([], dtype=mx.uint32)
            return
        for cache in self._caches:
            cache.filter(places)
        self._next = self._next[mx.array(places)]

    def _forward(self, rows: Sequence[DecodeSlot], caches: list[Any], tokens: mx.array) -> mx.array:
        """Feed `tokens` [rows, new tokens] to the model, and what is sampled after them, [rows], on its way."""
        logits = self._model(tokens, cache=caches)[:, -1, :]
        if any(row.is_adjusted for row in rows):
            logits = mx.concatenate(
                [row.adjusted(tokens[at], logits[at : at + 1]) for at, row in enumerate(rows)]
            )
        sampled = _sampled(rows, logits)
        mx.async_eval(sampled)
        return sampled


def _sampled(rows: Sequence[DecodeSlot], logits: mx.array) -> mx.array:
    """Rows that ask for the same are sampled together."""
    first = rows[0].sampler
    if all(row.sampler is first for row in rows):
        return first(logits)
    return mx.concatenate([row.sampler(logits[at : at + 1]) for at, row in enumerate(rows)])
