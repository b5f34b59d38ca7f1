# pyright: basic
"""Sequences that decode together, one token each per step, one step ahead of the reader.

Called by `BatchBackend`. The forward pass over the newest tokens is scheduled before those tokens
are read, so that neither the device nor Python waits for the other. mlx-lm's BatchGenerator does
the same but cannot limit the length of a prompt chunk. Knows no prompts and no chunks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.generation import FinishReason
from pensieve.engine.grammar.mask import TokenMask
from pensieve.engine.model.sampling import Sampler, penalized

# MLX keeps freed buffers of every size it has seen; they are released every this many steps.
_STEPS_BEFORE_CLEARING = 512


@dataclass(slots=True)
class DecodeSlot:
    """One sequence in the batch."""

    key: int
    tokens: list[int]  # that its caches hold
    max_tokens: int
    stop_tokens: frozenset[int]
    sampler: Sampler
    mask: TokenMask | None = None
    # Copies of untrimmable layers: by token count, then by layer.
    checkpoints: dict[int, dict[int, Any]] = field(default_factory=dict[int, dict[int, Any]])
    sampled: int = 0
    answer_start: int = 0  # where the answer begins in `tokens`
    repetition_penalty: float = 1.0

    @property
    def is_adjusted(self) -> bool:
        return self.mask is not None or self.repetition_penalty != 1

    def position_after(self, fed: int) -> int:
        """Return the position in the answer of the token after `tokens` and `fed` more."""
        return len(self.tokens) + fed - self.answer_start

    def adjusted(self, fed: mx.array, logits: mx.array) -> mx.array:
        """Apply penalty and mask to the logits [1, vocabulary] that follow `tokens` and `fed`."""
        if self.repetition_penalty != 1:
            logits = penalized(logits, self.tokens, fed, self.repetition_penalty)
        return self.mask(fed[-1:], logits) if self.mask else logits

    def take(self, token: int) -> FinishReason | None:
        """Record a sampled token, which the caches hold now; return the finish reason, if any."""
        self.tokens.append(token)
        self.sampled += 1
        if token in self.stop_tokens:
            return "stop_token"
        return "length" if self.sampled >= self.max_tokens else None


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one step for one sequence."""

    slot: DecodeSlot
    token: int
    finish: FinishReason | None = None
    caches: list[Any] | None = None  # the sequence's own, if it finished


class DecodeBatch:
    """Owns the slots and one batch cache per layer. For one thread."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._caches: list[Any] = []
        # Token ids [rows]: sampled, but not fed to the model yet.
        self._next = mx.array([], dtype=mx.uint32)
        self._steps = 0
        self.slots: list[DecodeSlot] = []

    def add(self, slot: DecodeSlot, caches: list[Any], last: Sequence[int]) -> None:
        """Add a sequence and feed the `last` tokens of its prompt.

        Its batch caches of one row hold all tokens before those.
        """
        sampled = self._forward([slot], caches, mx.array([last]))
        slot.tokens.extend(last)
        if self.slots:
            for own, new in zip(self._caches, caches, strict=True):
                own.extend(new)
            self._next = mx.concatenate([self._next, sampled])
        else:
            self._caches, self._next = caches, sampled
        self.slots = [*self.slots, slot]

    def step(self) -> list[Step]:
        """Return the next token of each sequence and schedule the pass for the one after it."""
        if not self.slots:
            return []
        fed = self._next
        self._next = self._forward(self.slots, self._caches, fed[:, None])
        tokens: list[int] = fed.tolist()  # type: ignore[assignment]
        self._steps += 1
        if self._steps % _STEPS_BEFORE_CLEARING == 0:
            mx.clear_cache()
        return self._record(tokens)

    def caches_of(self, slot: DecodeSlot) -> list[Any]:
        return self._extract(self.slots.index(slot))

    def remove(self, slot: DecodeSlot) -> None:
        self._filter([at for at, other in enumerate(self.slots) if other is not slot])

    def _record(self, tokens: Sequence[int]) -> list[Step]:
        steps: list[Step] = []
        unfinished: list[int] = []
        for at, (slot, token) in enumerate(zip(self.slots, tokens, strict=True)):
            finish = slot.take(token)
            caches = None
            if finish is None:
                unfinished.append(at)
            else:
                caches = self._extract(at)
            steps.append(Step(slot, token, finish, caches))
        if len(unfinished) < len(self.slots):
            self._filter(unfinished)
        return steps

    def _extract(self, at: int) -> list[Any]:
        """Copy one row's caches at once: views would keep the arrays of all rows alive."""
        caches = [cache.extract(at) for cache in self._caches]
        mx.async_eval([cache.state for cache in caches])
        return caches

    def _filter(self, indexes: list[int]) -> None:
        self.slots = [self.slots[at] for at in indexes]
        if not indexes:
            self._caches, self._next = [], mx.array([], dtype=mx.uint32)
            return
        for cache in self._caches:
            cache.filter(indexes)
        self._next = self._next[mx.array(indexes)]

    def _forward(
        self, slots: Sequence[DecodeSlot], caches: list[Any], tokens: mx.array
    ) -> mx.array:
        """Feed `tokens` [rows, new tokens]; schedule the sampling of the result [rows]."""
        logits = self._model(tokens, cache=caches)[:, -1, :]
        if any(slot.is_adjusted for slot in slots):
            logits = mx.concatenate(
                [slot.adjusted(tokens[at], logits[at : at + 1]) for at, slot in enumerate(slots)]
            )
        positions = [slot.position_after(tokens.shape[1]) for slot in slots]
        sampled = _sample(slots, logits, positions)
        mx.async_eval(sampled)
        return sampled


def _sample(slots: Sequence[DecodeSlot], logits: mx.array, positions: Sequence[int]) -> mx.array:
    """Sample rows that share a sampler in one call."""
    first = slots[0].sampler
    if all(slot.sampler is first for slot in slots):
        return first(logits, positions[0])
    rows = zip(slots, mx.split(logits, len(slots)), positions, strict=True)
    return mx.concatenate([slot.sampler(row, position) for slot, row, position in rows])
