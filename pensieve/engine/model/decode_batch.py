# pyright: basic
"""Sequences that decode together: each step feeds their last tokens, and drafts of the next ones.

Called by `BatchBackend`. Without drafts the forward pass over the newest tokens is scheduled before
those tokens are read, so that neither the device nor Python waits for the other. mlx-lm's
BatchGenerator does the same but cannot limit the length of a prompt chunk. Knows no prompts and no
chunks.

A draft for a sequence whose last token is not read yet begins with a guess of that token. Only if
such a guess is right, or the token was known, are the tokens of the step itself read at once; from
then on every draft follows known tokens. Refused drafts are dropped from the caches
(kv/rewinding.py). State-space layers drop the whole pass, and its tokens that stay are fed again
before the next ones; for lone sequences only: the rows of such a batch would have to be padded.

An MTP head (mtp/) drafts the token after a known one, also for lone sequences only. So a pass whose
next one shall have such a draft is read at once, even if it has no drafts itself.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.generation import DraftCounts, FinishReason, Logprobs
from pensieve.engine.model.decode_slot import DecodeSlot, SlotPass
from pensieve.engine.model.kv.packed import PackedKV
from pensieve.engine.model.kv.rewinding import RewindPoint, has_states
from pensieve.engine.model.mtp.drafts import HeadDrafts
from pensieve.engine.speculation.draft_source import HEAD, NO_DRAFT, Draft, Proposal
from pensieve.engine.speculation.policy import Policy, StepPlan

# MLX keeps freed buffers of every size it has seen; they are released every this many steps.
_STEPS_BEFORE_CLEARING = 512


def read(tokens: mx.array) -> list[int]:
    """Wait for token ids [rows]."""
    ids: Any = tokens.tolist()
    return ids


def own_tokens(sampled: mx.array) -> mx.array:
    """Return the token ids [rows] that this process sampled: it alone has the model."""
    return sampled


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one step for one sequence."""

    slot: DecodeSlot
    tokens: tuple[int, ...]  # at least one
    finish: FinishReason | None = None
    caches: list[Any] | None = None  # the sequence's own, if it finished
    drafts: DraftCounts | None = None  # None: none were fed
    logprobs: tuple[Logprobs, ...] = ()  # of the tokens; none if the sequence reports none


class DecodeBatch:
    """Owns the slots and one batch cache per layer. For one thread."""

    def __init__(  # noqa: PLR0913 -- five have defaults
        self,
        model: Any,
        policy: Policy | None = None,  # None: no drafts
        read: Callable[[mx.array], list[int]] = read,
        clock: Callable[[], float] = time.monotonic,
        *,
        head: HeadDrafts | None = None,  # used with a policy only
        draw: Callable[[mx.array], mx.array] = own_tokens,  # what counts of the sampled ones
    ) -> None:
        self._model = model
        self._draw = draw
        self._head = head
        self._policy = policy
        self._read = read
        self._clock = clock
        self._caches: list[Any] = []
        # Token ids [rows]: sampled, but not fed to the model yet.
        self._next = mx.array([], dtype=mx.uint32)
        self._has_states = False  # in layers of the model
        self._steps = 0
        # The newest pass, until its tokens are read.
        self._pass: tuple[StepPlan, list[SlotPass]] | None = None
        # When the tokens of the pass before were read; None: the device did other work since.
        self._read_s: float | None = None
        self._is_read_at_once = False  # that pass: the next one could only be built afterwards
        self._building_s = 0.0  # of the newest pass
        self.slots: list[DecodeSlot] = []

    def add(
        self, slot: DecodeSlot, caches: list[Any], last: Sequence[int], logits: Any = None
    ) -> None:
        """Add a sequence and feed the `last` tokens of its prompt.

        Its batch caches of one row hold all tokens before those, or these as well if the `logits`
        [1, vocabulary] after them are given.
        """
        fed = mx.array(list(last))
        if logits is None:
            logits = self._model(fed[None], cache=caches)[:, -1, :]
        mx.async_eval(logits)
        adjusted = slot.adjusted(fed, logits)
        if slot.mask is not None:
            adjusted, _ = slot.mask(adjusted)
        sampled = self._draw(slot.sampler(adjusted, slot.position_after(len(last))))
        mx.async_eval(sampled, *slot.note_drawn(logits, sampled))
        slot.tokens.extend(last)
        if self.slots:
            self._feed_again()
            for own, new in zip(self._caches, caches, strict=True):
                own.extend(new)
            self._next = mx.concatenate([self._next, sampled])
        else:
            self._caches, self._next = caches, sampled
            self._has_states = has_states(caches)
            if self._head is not None:
                self._head.begin(last, sampled)
        self.slots = [*self.slots, slot]
        self.note_other_work()

    def note_other_work(self) -> None:
        """The time until the next tokens says nothing about decoding."""
        self._read_s = None

    def read_first(self) -> list[Step]:
        """Return the first token of every sequence before any pass after it is scheduled."""
        parts = self._parts()
        self._read_last(parts)
        return self._finish(parts)

    def step(self) -> list[Step]:
        """Return the next tokens of each sequence and schedule the pass for the ones after them.

        A sequence has none in this step if its last token was read in the step before and no
        sequence has drafts.
        """
        if not self.slots:
            return []
        plan, parts = self._plan()
        point = RewindPoint(self._caches) if any(plan.drafts) else None
        sampled = self._schedule(parts)
        self._pass = (plan, parts)
        for part in parts:
            part.hold_last()
        self._verify(parts, sampled)
        self._steps += 1
        if self._steps % _STEPS_BEFORE_CLEARING == 0:
            mx.clear_cache()
        self._next = sampled
        if point is not None:
            self._rewind(point, parts, sampled)
        if self._head is not None and len(parts) == 1:
            self._head.note(len(parts[0].again), sampled, 1 + parts[0].accepted)
        return self._finish(parts)

    def caches_of(self, slot: DecodeSlot) -> list[Any]:
        return self._extract(self.slots.index(slot))

    def remove(self, slot: DecodeSlot) -> None:
        self._filter([at for at, other in enumerate(self.slots) if other is not slot])

    def _parts(self) -> list[SlotPass]:
        return [
            SlotPass(slot, start, slot.again, self._has_states)
            for start, slot in enumerate(self.slots)
        ]

    def _plan(self) -> tuple[StepPlan, list[SlotPass]]:
        """Choose the drafts of each sequence."""
        parts = self._parts()
        if self._policy is None:
            return StepPlan((0,) * len(parts)), parts
        for part in parts if len(parts) == 1 or not self._has_states else ():
            part.propose()
        context_tokens = sum(len(slot.tokens) for slot in self.slots)
        plan = self._policy.plan([part.account for part in parts], context_tokens)
        if self._head is not None and len(parts) == 1:
            plan = self._with_head(plan, parts[0], self._head, self._policy)
        start = 0
        for part, drafts in zip(parts, plan.drafts, strict=True):
            part.start, part.draft = start, part.draft.first(drafts)
            start += 1 + drafts
        return plan, parts

    def _with_head(
        self, plan: StepPlan, part: SlotPass, head: HeadDrafts, policy: Policy
    ) -> StepPlan:
        """Replace the planned drafts by one of the MTP head if that is worth more."""
        slot = part.slot
        if slot.max_drafts < 1 or not policy.prefers_head(plan, part.account):
            return plan
        if slot.last is None:
            part.is_awaited, part.draft = True, NO_DRAFT
            return replace(plan, drafts=(0,))
        if not head.is_ready:
            return plan
        began_s = self._clock()
        tokens = tuple(self._read(head.draft()))
        part.draft = slot.valid(Draft((Proposal(HEAD, tokens),)))
        return replace(plan, drafts=(len(part.draft),), head_s=self._clock() - began_s)

    def _schedule(self, parts: Sequence[SlotPass]) -> mx.array:
        """Feed last tokens and drafts, schedule the sampling of what follows each, and read the
        last tokens.

        They are read first if a mask needs them, while the device computes the logits.
        """
        began_s = self._clock()
        fed = self._fed(parts)
        logits = self._logits(fed, parts)
        is_masked = any(part.slot.mask for part in parts)
        if is_masked:
            mx.async_eval(logits)
            self._building_s = self._clock() - began_s
            self._read_last(parts)
        sampled = self._draw(_sample(parts, fed, logits))
        mx.async_eval(
            sampled, *(each for part in parts for each in part.note_drawn(logits, sampled))
        )
        if not is_masked:
            self._building_s = self._clock() - began_s
            self._read_last(parts)
        return sampled

    def _fed(self, parts: Sequence[SlotPass]) -> mx.array:
        drafts = [token for part in parts for token in part.draft.tokens]
        if not drafts:
            return self._next
        order: list[int] = []
        for at, part in enumerate(parts):
            after = len(order) - at + len(parts)
            order += [at, *range(after, after + len(part.draft))]
        every = mx.concatenate([self._next, mx.array(drafts, dtype=self._next.dtype)])
        return every[mx.array(order)]

    def _logits(self, fed: mx.array, parts: Sequence[SlotPass]) -> mx.array:
        """Return the logits [rows, vocabulary] after each fed token."""
        if again := parts[0].again:
            fed = mx.concatenate([mx.array(again, dtype=fed.dtype), fed])
        elif len(fed) == len(parts):
            return self._model(fed[:, None], cache=self._caches)[:, -1, :]
        if len(parts) == 1:
            return self._model(fed[None], cache=self._caches)[0, len(again) :]
        widths = [1 + len(part.draft) for part in parts]
        packed = [PackedKV(cache.sequences, widths) for cache in self._caches]
        return self._model(fed[:, None], cache=packed)[:, -1, :]

    def _feed_again(self) -> None:
        """Feed what was dropped with refused drafts, since others join its lone sequence."""
        slot = self.slots[0]
        if slot.again:
            self._model(mx.array([slot.again]), cache=self._caches)
            slot.tokens, slot.again = [*slot.tokens, *slot.again], []

    def _read_last(self, parts: Sequence[SlotPass]) -> None:
        """Read the last tokens, unless all were read before."""
        unread = [part.slot.last is None for part in parts]
        tokens = self._read(self._next) if any(unread) else [0] * len(parts)
        if any(unread):
            self._settle(is_read_at_once=False)
        for part, token, is_unread in zip(parts, tokens, unread, strict=True):
            part.note_last(token if is_unread else None)

    def _verify(self, parts: Sequence[SlotPass], sampled: mx.array) -> None:
        """Read the sampled tokens if drafts may be among them."""
        if not any(part.is_verified for part in parts):
            return
        drawn = self._read(sampled)
        for part in parts:
            if part.finish is None:
                part.verify(drawn[part.rows])
        self._settle(is_read_at_once=True)

    def _settle(self, *, is_read_at_once: bool) -> None:
        """Account for the pass whose tokens were just read."""
        now_s = self._clock()
        if self._policy is not None and self._pass is not None:
            plan, parts = self._pass
            seconds = self._seconds(now_s, plan, is_read_at_once=is_read_at_once)
            self._policy.settle(plan, [part.account for part in parts], seconds)
        self._pass, self._read_s, self._is_read_at_once = None, now_s, is_read_at_once

    def _seconds(self, now_s: float, plan: StepPlan, *, is_read_at_once: bool) -> float | None:
        """Return what the pass took; None if its time says nothing.

        While a pass is read at once the next one cannot be built, which plain passes do. The first
        such pass pays for that, and the first plain pass after it does not count.
        """
        if self._read_s is None or (self._is_read_at_once and not any(plan.drafts)):
            return None
        is_first = is_read_at_once and not self._is_read_at_once and any(plan.drafts)
        return now_s - self._read_s + (self._building_s if is_first else 0.0)

    def _rewind(self, point: RewindPoint, parts: Sequence[SlotPass], sampled: mx.array) -> None:
        """Drop refused drafts from the caches and select each sequence's newest token."""
        refused = [len(part.draft) - part.accepted for part in parts]
        if any(refused):
            point.rewind([part.drop() for part in parts] if point.is_whole else refused)
        self._next = sampled[mx.array([part.start + part.accepted for part in parts])]
        mx.async_eval(self._next)

    def _finish(self, parts: Sequence[SlotPass]) -> list[Step]:
        """Return the new tokens; remove the sequences that finished."""
        steps = [
            Step(
                part.slot,
                tuple(part.new),
                part.finish,
                self._extract(at) if part.finish else None,
                part.draft.counts(part.accepted) if part.draft.proposals else None,
                tuple(part.new_logprobs),
            )
            for at, part in enumerate(parts)
            if part.new
        ]
        unfinished = [at for at, part in enumerate(parts) if part.finish is None]
        if len(unfinished) < len(parts):
            self._filter(unfinished)
        return steps

    def _extract(self, at: int) -> list[Any]:
        """Copy one row's caches at once: views would keep the arrays of all rows alive."""
        caches = [cache.extract(at) for cache in self._caches]
        mx.async_eval([cache.state for cache in caches])
        return caches

    def _filter(self, indexes: list[int]) -> None:
        self.slots = [self.slots[at] for at in indexes]
        if self._head is not None:
            self._head.clear()
        if not indexes:
            self._caches, self._next = [], mx.array([], dtype=mx.uint32)
            return
        for cache in self._caches:
            cache.filter(indexes)
        self._next = self._next[mx.array(indexes)]


def _sample(parts: Sequence[SlotPass], fed: mx.array, logits: mx.array) -> mx.array:
    """Sample what follows each fed token; parts that share a sampler in one call."""
    positions = [part.slot.position_after(1) for part in parts]
    first = parts[0].slot.sampler
    if all(part.slot.sampler is first for part in parts):
        if any(part.slot.is_adjusted for part in parts):
            logits = mx.concatenate([part.adjusted(fed, logits) for part in parts])
        return first(logits, positions[0])
    pairs = zip(parts, positions, strict=True)
    return mx.concatenate(
        [part.slot.sampler(part.adjusted(fed, logits), position) for part, position in pairs]
    )
