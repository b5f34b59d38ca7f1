# pyright: basic
"""A `backend.Backend` over a model of mlx-lm's: prompts one at a time and in chunks, decoding together (decode_batch.py).

All of it happens on the thread that made the backend, as MLX's streams require. Of mlx-lm it uses models and caches: their
`merge`, `extend`, `filter` and `extract`, which tests/mlx holds for every kind.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx  # noqa: TID253

from pensieve.engine.generation import Generation
from pensieve.engine.grammar.mask import Matcher, TokenMask
from pensieve.engine.long_operations import StepAnnouncer
from pensieve.engine.model.decode_batch import DecodeBatch, DecodeSlot, Step
from pensieve.engine.model.kv_state import SequenceKVState, add_checkpoint, checkpoint_of
from pensieve.engine.model.sampling import make_sampler
from pensieve.engine.scheduling.backend import (
    Outcome,
    PrefillProgress,
    ReleasedSequence,
    Sampled,
    SequenceFailed,
)
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer
from pensieve.engine.scheduling.prefix_cache import Hit
from pensieve.errors import GrammarError

# So few tokens of a prompt are processed in one pass with its last one, whose logits are then computed for all of them.
_LAST_TOKENS = 32
# A model with layers that cannot be cut back gets a checkpoint at least every so many prompt tokens.
CHECKPOINT_TOKENS = 2048


@dataclass(slots=True)
class _Prompt:
    """A sequence whose prompt is in work. caches: batch caches of one row, which hold the first `done` tokens.

    places: where a checkpoint is to be taken, ascending.
    """

    key: int
    generation: Generation
    caches: list[Any]
    done: int
    places: deque[int]
    mask: TokenMask | None
    checkpoints: dict[int, dict[int, Any]] = field(default_factory=dict[int, dict[int, Any]])

    @property
    def tokens(self) -> list[int]:
        """What the caches hold."""
        return list(self.generation.prompt_tokens[: self.done])

    def tokens_within(self, chunk: int) -> int:
        """How many tokens a chunk has: it ends with the prompt, and where a checkpoint is due."""
        ends = [len(self.generation.prompt_tokens), *list(self.places)[:1]]
        return min(chunk, min(ends) - self.done)

    def own_caches(self) -> list[Any]:
        """The caches of the sequence, out of its batch of one."""
        return [cache.extract(0) for cache in self.caches]


def without_grammars(_: Generation) -> Matcher:
    """For a batch of generations that have none."""
    raise GrammarError("This engine takes no grammars.")


class BatchBackend:
    """Owns the prompts in work, in order of arrival, and the sequences that decode."""

    def __init__(
        self,
        model: Any,
        make_caches: Callable[[], list[Any]],
        chunks: ChunkSizer,
        match: Callable[[Generation], Matcher] = without_grammars,
        announcer: StepAnnouncer | None = None,
    ) -> None:
        """match: what tells the tokens that a generation's grammar allows.

        announcer: None where no front end watches.
        """
        self._model = model
        self._make_caches = make_caches
        self._match = match
        self._chunks = chunks
        self._announcer = announcer or StepAnnouncer()
        self._prompts: deque[_Prompt] = deque()
        self._decoding = DecodeBatch(model)
        self._can_always_cut = not checkpoint_of(make_caches())

    def insert(self, key: int, generation: Generation, hit: Hit | None) -> None:
        """Queue one sequence for prefill, after what `hit` holds of it."""
        caches = hit.state.caches if hit else self._make_caches()  # type: ignore[attr-defined]
        checkpoints = hit.state.checkpoints if hit else {}  # type: ignore[attr-defined]
        done = hit.cached_tokens if hit else 0
        self._prompts.append(
            _Prompt(
                key,
                generation,
                [cache.merge([cache]) for cache in caches],
                done,
                deque(self._places(generation, done)),
                TokenMask(self._match(generation)) if generation.grammar else None,
                dict(checkpoints),
            )
        )

    def remove(self, key: int) -> ReleasedSequence | None:
        """Take a sequence out, whether queued, in prefill or decoding."""
        if (prompt := self._prompt_of(key)) is not None:
            self._prompts.remove(prompt)
            if not prompt.done:
                return None
            return _rest(prompt.own_caches(), prompt.tokens, prompt.checkpoints)
        row = self._row_of(key)
        caches = self._decoding.caches_of(row)
        self._decoding.remove(row)
        return _rest(caches, row.tokens, row.checkpoints)

    def fork(self, key: int, tokens: int) -> Hit | None:
        """A copy of the first tokens of a sequence that stays in the batch."""
        if (prompt := self._prompt_of(key)) is not None:
            caches, held, checkpoints = prompt.own_caches(), prompt.done, prompt.checkpoints
        else:
            row = self._row_of(key)
            caches, held = self._decoding.caches_of(row), len(row.tokens)
            checkpoints = row.checkpoints
        state = SequenceKVState(caches, held, checkpoints)
        usable = state.usable_tokens(min(tokens, held))
        return Hit(state.copy(usable), usable) if usable else None

    def step(self) -> list[Outcome]:
        """A token for every decoding sequence; then, unless it is decoding's turn, a chunk of the prompt in work."""
        is_shared = bool(self._decoding.rows)
        chunk = 0
        if self._prompts:
            chunk = self._chunks.next_chunk(self._prompts[0].done, is_shared=is_shared)
        self._announce(chunk)
        started = time.monotonic()
        outcomes: list[Outcome] = [_sampled(step) for step in self._decoding.step()]
        if chunk:
            outcomes.append(self._advance(chunk, started, is_shared=is_shared))
        else:
            self._chunks.note_decode(time.monotonic() - started)
        return [*outcomes, *self._broken()]

    def _announce(self, chunk: int) -> None:
        """Announce what may take long: a chunk, and passes of a size that was not seen before."""
        rows = len(self._decoding.rows)
        if not chunk:
            self._announcer.begin(f"decoding {rows} answers", [rows], 0.0)
            return
        prompt = self._prompts[0]
        tokens = prompt.tokens_within(chunk)
        # Where the prompt ends in this chunk, its last token may have a pass of its own.
        last = 1 if prompt.done + chunk >= len(prompt.generation.prompt_tokens) else 0
        self._announcer.begin(
            f"processing {tokens} tokens after {prompt.done}",
            [rows, tokens, last],
            self._chunks.expected_s(tokens, prompt.done),
        )

    def _advance(self, chunk: int, started: float, *, is_shared: bool) -> PrefillProgress:
        """Process the next chunk of the first prompt. started: of the step, decoding included."""
        prompt = self._prompts[0]
        before = prompt.done
        self._process(prompt, chunk)
        processed = prompt.done - before
        spent_s = time.monotonic() - started
        if processed:
            self._chunks.note_chunk(processed, before, spent_s, is_shared=is_shared)
        else:
            # Only the last tokens are left. They are computed after this, so they tell nothing of
            # what a token takes.
            self._chunks.note_other(spent_s if is_shared else 0.0)
        return self._joined(prompt, chunk - processed) or PrefillProgress(prompt.key, prompt.done)

    def close(self) -> None:
        """Drop the batch and the buffers it leaves behind."""
        self._prompts.clear()
        self._decoding = DecodeBatch(self._model)
        mx.clear_cache()

    def _places(self, generation: Generation, done: int) -> list[int]:
        """Where a checkpoint is to be taken on the way."""
        if self._can_always_cut:
            return []
        length = len(generation.prompt_tokens)
        places = set(generation.boundaries) | set(range(0, length, CHECKPOINT_TOKENS))
        return sorted(place for place in places if done < place < length)

    def _process(self, prompt: _Prompt, chunk: int) -> None:
        """The next tokens of a prompt, unless they are the last few."""
        tokens = prompt.generation.prompt_tokens
        end = min(prompt.done + chunk, len(tokens) - 1, *list(prompt.places)[:1])
        if _is_at_end(prompt, chunk) or end == prompt.done:
            return
        self._model(mx.array([tokens[prompt.done : end]]), cache=prompt.caches)
        mx.eval([cache.state for cache in prompt.caches])
        prompt.done = end
        if prompt.places and prompt.places[0] == end:
            prompt.places.popleft()
            saved = checkpoint_of(prompt.own_caches())
            add_checkpoint(prompt.checkpoints, end, saved, prompt.generation.pinned_tokens)

    def _joined(self, prompt: _Prompt, chunk: int) -> PrefillProgress | None:
        """With the last few tokens decoding begins; they are on their way when this returns. chunk: what is left of it."""
        if not _is_at_end(prompt, chunk):
            return None
        tokens = prompt.generation.prompt_tokens
        self._prompts.remove(prompt)
        self._decoding.add(_row(prompt), prompt.caches, tokens[prompt.done :])
        prompt.done = len(tokens)
        return PrefillProgress(prompt.key, len(tokens), is_done=True)

    def _broken(self) -> Iterator[SequenceFailed]:
        for row in self._decoding.rows:
            if row.mask and row.mask.failure:
                yield SequenceFailed(row.key, row.mask.failure)

    def _prompt_of(self, key: int) -> _Prompt | None:
        return next((prompt for prompt in self._prompts if prompt.key == key), None)

    def _row_of(self, key: int) -> DecodeSlot:
        return next(row for row in self._decoding.rows if row.key == key)


def _is_at_end(prompt: _Prompt, chunk: int) -> bool:
    left = len(prompt.generation.prompt_tokens) - prompt.done
    return left <= min(_LAST_TOKENS, chunk) and not prompt.places


def _row(prompt: _Prompt) -> DecodeSlot:
    asked = prompt.generation
    return DecodeSlot(
        prompt.key,
        prompt.tokens,
        asked.max_tokens,
        asked.stop_tokens,
        make_sampler(asked.sampling),
        prompt.mask,
        prompt.checkpoints,
        repetition_penalty=asked.sampling.repetition_penalty,
    )


def _sampled(step: Step) -> Sampled:
    row = step.row
    if step.caches is None:
        return Sampled(row.key, step.token)
    return Sampled(
        row.key, step.token, step.finish, _rest(step.caches, row.tokens, row.checkpoints)
    )


def _rest(
    caches: list[Any], tokens: list[int], checkpoints: dict[int, dict[int, Any]]
) -> ReleasedSequence:
    return ReleasedSequence(tokens, SequenceKVState(caches, len(tokens), checkpoints))
