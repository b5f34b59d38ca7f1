# pyright: basic
"""Prefill in chunks and batched decoding over an mlx-lm model: implements `backend.Backend`.

Called by the scheduler. Everything runs on the thread that made the backend, as MLX's streams
require. Uses models and caches of mlx-lm: their `merge`, `extend`, `filter` and `extract`, which
tests/mlx checks for every cache kind.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import accumulate, chain, takewhile
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.generation import Generation
from pensieve.engine.grammar.mask import Matcher, TokenMask
from pensieve.engine.long_operations import LOOKING_S, StepAnnouncer
from pensieve.engine.model.decode_batch import DecodeBatch, Step, own_tokens
from pensieve.engine.model.decode_slot import DecodeSlot
from pensieve.engine.model.kv.packed import PackedKV
from pensieve.engine.model.kv.rewinding import can_rewind
from pensieve.engine.model.kv_cache import SequenceKVCache
from pensieve.engine.model.kv_state import (
    SequenceKVState,
    add_checkpoint,
    checkpoint_of,
    is_always_trimmable,
)
from pensieve.engine.model.loading import logit_rows_of
from pensieve.engine.model.logits.sampling import make_sampler
from pensieve.engine.model.mtp.drafts import HeadDrafts
from pensieve.engine.model.prompt_in_prefill import PromptInPrefill
from pensieve.engine.model.vision.sight import Sight
from pensieve.engine.pictures import PromptPicture
from pensieve.engine.scheduling.backend import (
    Outcome,
    PrefillProgress,
    ReleasedSequence,
    Sampled,
    SequenceFailed,
)
from pensieve.engine.scheduling.prefill_chunks import (
    LONE_CHUNK_S,
    SHARED_CHUNK_S,
    ChunkSizer,
)
from pensieve.engine.scheduling.prefix_cache import Hit
from pensieve.engine.speculation.drafter import Drafter, ForcedTokens, Speculation
from pensieve.errors import GrammarError

# Up to this many last tokens of a prompt are fed without waiting for the device. Without
# `LogitRows`, that pass computes the logits after all of them, so it has no more tokens.
_LAST_TOKENS = 32
# Models with untrimmable layers get a checkpoint at least every this many prompt tokens.
CHECKPOINT_TOKENS = 2048


def without_grammars(_: Generation) -> Matcher:
    raise GrammarError("This engine supports no grammars.")


class BatchBackend:
    """Owns the prompts in prefill, in order of arrival, and the decoding sequences."""

    def __init__(  # noqa: PLR0913 -- five have defaults
        self,
        model: Any,
        make_caches: Callable[[], list[Any]],
        chunks: ChunkSizer,
        match: Callable[[Generation], Matcher] = without_grammars,  # a matcher of its grammar
        announcer: StepAnnouncer | None = None,  # None: no front end watches
        *,
        speculation: Speculation | None = None,  # None: no drafts
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[mx.array], mx.array] = own_tokens,
        sight: Sight | None = None,  # None: the model takes no pictures
    ) -> None:
        self._model = model
        self._sight = sight
        self._clock = clock
        self._draw = draw
        self._make_caches = make_caches
        self._match = match
        self._chunks = chunks
        self._announcer = announcer or StepAnnouncer()
        self._prompts: deque[PromptInPrefill] = deque()
        if sight is not None:
            sight.prompts = self._prompts
        self._logit_rows = logit_rows_of(model)
        caches = make_caches()
        self._speculation = speculation if can_rewind(caches) else None
        is_ragged = all(type(cache) is SequenceKVCache for cache in caches)
        self._can_pack = is_ragged and self._logit_rows is not None
        self._decode_batch = self._new_batch()
        self._is_always_trimmable = all(is_always_trimmable(cache) for cache in caches)

    def insert(self, key: int, generation: Generation, hit: Hit | None) -> None:
        """Queue one sequence for prefill; `hit` holds its cached prefix."""
        caches = hit.state.caches if hit else self._make_caches()  # type: ignore[attr-defined]
        checkpoints = hit.state.checkpoints if hit else {}  # type: ignore[attr-defined]
        done = hit.cached_tokens if hit else 0
        mask = TokenMask(self._match(generation)) if generation.grammar else None
        self._prompts.append(
            PromptInPrefill(
                key,
                generation,
                [cache.merge([cache]) for cache in caches],
                done,
                deque(self._checkpoint_ends(generation, done)),
                mask,
                self._drafter_of(generation, mask),
                dict(checkpoints),
            )
        )

    def remove(self, key: int) -> ReleasedSequence | None:
        """Remove a sequence, whether queued, in prefill or decoding. None if it holds no tokens."""
        if (prompt := self._prompt_of(key)) is not None:
            self._prompts.remove(prompt)
            if self._sight is not None:
                self._sight.desk.forget(key)
            if not prompt.done:
                return None
            return _released(prompt.own_caches(), prompt.tokens, prompt.checkpoints)
        slot = self._slot_of(key)
        caches = self._decode_batch.caches_of(slot)
        self._decode_batch.remove(slot)
        return _released(caches, slot.tokens, slot.checkpoints)

    def fork(self, key: int, tokens: int) -> Hit | None:
        """Copy the longest usable prefix of at most `tokens` tokens of a sequence in the batch."""
        if (prompt := self._prompt_of(key)) is not None:
            caches, length = prompt.own_caches(), prompt.done
            checkpoints = prompt.checkpoints
        else:
            slot = self._slot_of(key)
            caches, length = self._decode_batch.caches_of(slot), len(slot.tokens)
            checkpoints = slot.checkpoints
        state = SequenceKVState(caches, length, checkpoints)
        usable = state.usable_tokens(min(tokens, length))
        return Hit(state.copy(usable), usable) if usable else None

    def step(self) -> list[Outcome]:
        """Decode the next tokens of all decoding sequences, then process a chunk of the first
        prompt, or the first prompts to their ends if one chunk has room for them.

        The chunk is skipped when `ChunkSizer` gives this step to decoding alone.
        """
        is_shared = bool(self._decode_batch.slots)
        chunk = 0
        if self._prompts:
            chunk = self._chunks.next_chunk(self._prompts[0].done, is_shared=is_shared)
        prompts = self._prompts_of(chunk, is_shared=is_shared)
        picture = self._picture_before(prompts)
        self._announce(prompts, chunk)
        started = self._clock()
        outcomes: list[Outcome] = [_sampled(step) for step in self._decode_batch.step()]
        if picture is not None:
            outcomes += self._look(prompts[0], picture, is_shared=is_shared)
        elif prompts:
            outcomes += self._step_prefill(prompts, chunk, started, is_shared=is_shared)
        else:
            self._chunks.note_decode(self._clock() - started)
        return [*outcomes, *self._grammar_failures()]

    def _prompts_of(self, chunk: int, *, is_shared: bool) -> list[PromptInPrefill]:
        """Return the prompts that the next chunk processes; none if there is no chunk."""
        if not chunk:
            return []
        count = 1
        if self._can_pack and len(self._prompts) > 1:
            rests = [
                prompt.rest
                for prompt in takewhile(lambda one: not one.generation.pictures, self._prompts)
            ]
            count = max(1, self._chunks.prompts_in_chunk(rests, is_shared=is_shared))
        return list(self._prompts)[:count]

    def _picture_before(self, prompts: list[PromptInPrefill]) -> PromptPicture | None:
        """Return the picture that must be looked at before the next chunk, if one must."""
        if self._sight is None:
            return None
        for prompt in prompts:
            prompt.unseen = self._sight.unseen(prompt.generation, prompt.done)
            if prompt.unseen and prompt.unseen.start <= prompt.done:
                return prompt.unseen
        return None

    def _look(
        self, prompt: PromptInPrefill, picture: PromptPicture, *, is_shared: bool
    ) -> list[Outcome]:
        """Have the tower look at a picture for as long as a chunk takes, if its pixels are here."""
        assert self._sight is not None
        has_pixels = self._sight.ask(prompt.key, prompt.generation, prompt.done)
        self._sight.desk.is_awaited = not has_pixels and not self._decode_batch.slots
        if not has_pixels:
            return []
        started = self._clock()
        self._decode_batch.note_other_work()
        try:
            self._sight.look(picture, SHARED_CHUNK_S if is_shared else LONE_CHUNK_S)
        except Exception as error:  # noqa: BLE001 - MLX may raise anything, for a damaged tower
            return [SequenceFailed(prompt.key, error)]
        self._chunks.note_other(self._clock() - started if is_shared else 0.0)
        return []

    def _announce(self, prompts: list[PromptInPrefill], chunk: int) -> None:
        """Announce what may take long: a chunk, and passes of a new size."""
        rows = len(self._decode_batch.slots)
        if not prompts:
            self._announcer.begin(f"decoding {rows} answers", [rows], 0.0)
            return
        tokens = sum(prompt.tokens_within(chunk) for prompt in prompts)
        if not tokens:
            self._announcer.announce("looking at a picture", LOOKING_S)
            return
        before = max(prompt.done for prompt in prompts)
        # If the prompt ends in this chunk, its last token may have a pass of its own.
        last = 1 if chunk >= prompts[0].rest.tokens else 0
        self._announcer.begin(
            f"processing {tokens} tokens after {before}",
            [rows, tokens, last],
            self._chunks.expected_s(tokens, before),
        )

    def _step_prefill(
        self, prompts: list[PromptInPrefill], chunk: int, started: float, *, is_shared: bool
    ) -> list[Outcome]:
        """Process the next chunk. `started` is the start of the whole step."""
        before = max(prompt.done for prompt in prompts)
        awaited = self._process(prompts[0], chunk)
        first: list[Outcome] = []
        if self._is_at_end(prompts[0], chunk - awaited):
            tokens = self._start_decoding(prompts)
            # The token of a failed answer must not be seen.
            if not is_shared and not any(self._grammar_failures()):
                first = [_sampled(step) for step in self._decode_batch.read_first()]
            awaited += 0 if is_shared and tokens <= _LAST_TOKENS else tokens
        spent_s = self._clock() - started
        if awaited:
            self._chunks.note_chunk(awaited, before, spent_s, is_shared=is_shared)
        else:
            # Only a few last tokens are left, and they are computed after this step: its duration
            # says nothing about the time per token.
            self._chunks.note_other(spent_s if is_shared else 0.0)
        progress = (
            PrefillProgress(prompt.key, prompt.done, is_done=not prompt.rest.tokens)
            for prompt in prompts
        )
        return [*progress, *first]

    def close(self) -> None:
        """Drop the batch and free the buffers that MLX caches for it."""
        self._prompts.clear()
        if self._sight is not None:
            self._sight.begin_again()
        self._decode_batch = self._new_batch()
        mx.clear_cache()

    def _new_batch(self) -> DecodeBatch:
        new_batch = partial(DecodeBatch, self._model, clock=self._clock, draw=self._draw)
        if self._speculation is None:
            return new_batch()
        head, rows = self._speculation.head, self._logit_rows
        drafts = HeadDrafts(head, rows) if head and rows else None
        return new_batch(self._speculation.policy, head=drafts)

    def _drafter_of(self, generation: Generation, mask: TokenMask | None) -> Drafter:
        if self._speculation is None:
            return Drafter()
        drafter = self._speculation.drafter_of(generation)
        if mask is None:
            return drafter
        return replace(drafter, sources=(ForcedTokens(mask.forced), *drafter.sources))

    def _checkpoint_ends(self, generation: Generation, done: int) -> list[int]:
        """Return the token counts between `done` and the end at which a checkpoint is due."""
        if self._is_always_trimmable:
            return []
        length = len(generation.prompt_tokens)
        ends = set(generation.boundaries) | set(range(0, length, CHECKPOINT_TOKENS))
        if generation.shares_prompt:
            ends.add(length - 1)  # the others feed the last token themselves
        return sorted(end for end in ends if done < end < length)

    def _process(self, prompt: PromptInPrefill, chunk: int) -> int:
        """Process the next tokens of a prompt, but not its last ones; return how many."""
        before, last = prompt.done, len(prompt.generation.prompt_tokens) - 1
        end = min(before + chunk, last, *prompt.stops)
        if self._is_at_end(prompt, chunk) or end == before:
            return 0
        self._decode_batch.note_other_work()
        self._feed(prompt, end)
        mx.eval([cache.state for cache in prompt.caches])
        prompt.done = end
        if prompt.checkpoint_ends and prompt.checkpoint_ends[0] == end:
            prompt.checkpoint_ends.popleft()
            saved = checkpoint_of(prompt.own_caches())
            add_checkpoint(prompt.checkpoints, end, saved, prompt.generation.pinned_tokens)
        return end - before

    def _is_at_end(self, prompt: PromptInPrefill, chunk: int) -> bool:
        """Whether the next pass, of at most `chunk` tokens, is the prompt's last."""
        largest = chunk if self._logit_rows else min(_LAST_TOKENS, chunk)
        has_stop = prompt.checkpoint_ends or prompt.unseen
        return prompt.rest.tokens <= largest and not has_stop

    def _feed(self, prompt: PromptInPrefill, end: int) -> mx.array:
        """Feed a prompt's tokens up to `end`; return the logits that the model gives."""
        generation, before = prompt.generation, prompt.done
        if generation.pictures and self._sight is not None:
            return self._sight.feed(generation, prompt.caches, before, end)
        return self._model(mx.array([generation.prompt_tokens[before:end]]), cache=prompt.caches)

    def _start_decoding(self, prompts: list[PromptInPrefill]) -> int:
        """Feed the last tokens of these prompts in one pass; return how many.

        A few are only scheduled on the device when this returns.
        """
        lasts = [prompt.generation.prompt_tokens[prompt.done :] for prompt in prompts]
        tokens = sum(len(last) for last in lasts)
        logits = self._last_logits(prompts, lasts)
        if tokens > _LAST_TOKENS:
            mx.eval(logits)
        for prompt, last, row in zip(prompts, lasts, logits, strict=True):
            self._prompts.remove(prompt)
            self._decode_batch.add(self._slot(prompt), prompt.caches, last, row[None])
            prompt.done += len(last)
        return tokens

    def _last_logits(
        self, prompts: list[PromptInPrefill], lasts: list[tuple[int, ...]]
    ) -> mx.array:
        """Return the logits [prompts, vocabulary] after their last tokens."""
        if self._logit_rows is None:
            (prompt,), (last,) = prompts, lasts
            return self._feed(prompt, prompt.done + len(last))[:, -1, :]
        widths = [len(last) for last in lasts]
        with self._logit_rows.only([end - 1 for end in accumulate(widths)]):
            if len(prompts) == 1:
                return self._feed(prompts[0], prompts[0].done + widths[0])[:, -1, :]
            packed = [
                PackedKV([cache.sequences[0] for cache in layer], widths)
                for layer in zip(*(prompt.caches for prompt in prompts), strict=True)
            ]
            fed = mx.array(list(chain.from_iterable(lasts)))
            return self._model(fed[:, None], cache=packed)[:, -1, :]

    def _slot(self, prompt: PromptInPrefill) -> DecodeSlot:
        generation = prompt.generation
        return DecodeSlot(
            prompt.key,
            prompt.tokens,
            generation.max_tokens,
            generation.stop_tokens,
            make_sampler(generation.sampling),
            prompt.mask,
            prompt.checkpoints,
            answer_start=len(generation.prompt_tokens) - generation.answered_tokens,
            sampling=generation.sampling,
            top_logprobs=generation.top_logprobs,
            drafter=prompt.drafter,
        )

    def _grammar_failures(self) -> Iterator[SequenceFailed]:
        for slot in self._decode_batch.slots:
            if slot.mask and slot.mask.failure:
                yield SequenceFailed(slot.key, slot.mask.failure)

    def _prompt_of(self, key: int) -> PromptInPrefill | None:
        return next((prompt for prompt in self._prompts if prompt.key == key), None)

    def _slot_of(self, key: int) -> DecodeSlot:
        return next(slot for slot in self._decode_batch.slots if slot.key == key)


def _sampled(step: Step) -> Sampled:
    slot = step.slot
    if step.caches is None:
        return Sampled(slot.key, step.tokens, drafts=step.drafts, logprobs=step.logprobs)
    released = _released(step.caches, slot.tokens, slot.checkpoints)
    return Sampled(slot.key, step.tokens, step.finish, released, step.drafts, step.logprobs)


def _released(
    caches: list[Any], tokens: list[int], checkpoints: dict[int, dict[int, Any]]
) -> ReleasedSequence:
    return ReleasedSequence(tokens, SequenceKVState(caches, len(tokens), checkpoints))
