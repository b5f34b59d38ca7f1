# pyright: basic
"""The only file that names mlx-lm's BatchGenerator: a `backend.Backend` over it.

mlx-lm's generate.py changes often; what is used of it here (insert_segments, remove, extract_cache, next,
prefill_step_size, StopSequences) is held by tests/mlx. All of it happens on the thread that made the backend, as MLX's
streams require.
"""

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx_lm.generate import BatchGenerator, StopSequences  # noqa: TID253

from pensieve.engine.backend import Broken, Outcome, Progressed, Rest, Sampled
from pensieve.engine.chunks import ChunkSizer
from pensieve.engine.generation import FinishReason, Generation
from pensieve.engine.masks import Matcher, TokenMask
from pensieve.engine.prefix_cache import Hit
from pensieve.engine.sampling import make_sampler
from pensieve.engine.state import SequenceState, checkpoint_of
from pensieve.errors import GrammarError

# A wired limit goes with kernel panics on macOS under load (engine.md, fact 10), and BatchGenerator sets one by itself.
# (By module name, since `mlx_lm.generate` as an attribute is the function of that name.)
_generate: Any = importlib.import_module("mlx_lm.generate")
_generate.maybe_set_recommended_wired_limit = lambda: None

# A model with layers that cannot be cut back gets a checkpoint at least every so many prompt tokens.
CHECKPOINT_TOKENS = 2048


@dataclass(slots=True)
class _Sequence:
    """One of the batch's sequences, by our key."""

    key: int
    cached_tokens: int
    done_tokens: int = 0
    is_decoding: bool = False
    checkpoints: dict[int, dict[int, Any]] = field(default_factory=dict[int, dict[int, Any]])
    mask: TokenMask | None = None


def without_grammars(_: Generation) -> Matcher:
    """For a batch of generations that have none."""
    raise GrammarError("This engine takes no grammars.")


class BatchBackend:
    """Owns one BatchGenerator and the map from its ids to ours."""

    def __init__(
        self,
        model: Any,
        make_caches: Callable[[], list[Any]],
        chunks: ChunkSizer,
        max_batch: int,
        match: Callable[[Generation], Matcher] = without_grammars,
    ) -> None:
        """match: what tells the tokens that a generation's grammar allows."""
        self._make_caches = make_caches
        self._match = match
        self._chunks = chunks
        self._stream = mx.default_stream(mx.default_device())
        self._generator = BatchGenerator(
            model, completion_batch_size=max_batch, prefill_batch_size=1, stream=self._stream
        )
        self._sequences: dict[int, _Sequence] = {}
        self._can_always_cut = not checkpoint_of(make_caches())

    def insert(self, key: int, generation: Generation, hit: Hit | None) -> None:
        """Queue one sequence for prefill, after what `hit` holds of it."""
        caches = hit.state.caches if hit else self._make_caches()  # type: ignore[attr-defined]
        cached_tokens = hit.cached_tokens if hit else 0
        prompt = list(generation.prompt_tokens)
        mask = TokenMask(self._match(generation)) if generation.grammar else None
        (uid,) = self._generator.insert_segments(
            [list(self._segments(prompt, cached_tokens, generation.boundaries))],
            max_tokens=[generation.max_tokens],
            caches=[caches],
            all_tokens=[prompt[:cached_tokens]],
            samplers=[make_sampler(generation.sampling)],
            logits_processors=[[mask] if mask else []],
            stop_sequences=[_stop_sequences(generation.stop_tokens)],
        )
        checkpoints = hit.state.checkpoints if hit else {}  # type: ignore[attr-defined]
        self._sequences[uid] = _Sequence(
            key, cached_tokens, checkpoints=dict(checkpoints), mask=mask
        )

    def remove(self, key: int) -> Rest | None:
        """Take a sequence out, whether queued, in prefill or decoding."""
        uid = self._uid_of(key)
        sequence = self._sequences.pop(uid)
        removed = self._generator.remove([uid], return_prompt_caches=True)
        caches, tokens = removed[uid]
        return _rest(caches, tokens, sequence.checkpoints) if tokens else None

    def fork(self, key: int, tokens: int) -> Hit | None:
        """A copy of the first tokens of a sequence that stays in the batch."""
        uid = self._uid_of(key)
        caches, held = self._generator.extract_cache([uid])[uid]
        state = SequenceState(caches, len(held), self._sequences[uid].checkpoints)
        usable = state.usable(min(tokens, len(held)))
        return Hit(state.copy(usable), usable) if usable else None

    def step(self) -> list[Outcome]:
        """A token for every decoding sequence; then, unless it is decoding's turn, a chunk of the prompt in work."""
        is_shared = any(sequence.is_decoding for sequence in self._sequences.values())
        has_prompt = not all(sequence.is_decoding for sequence in self._sequences.values())
        chunk = self._chunks.next_chunk(is_shared=is_shared) if has_prompt else 0
        outcomes = self._decode_and_process(chunk, is_shared) if chunk else self._decode()
        return [*outcomes, *self._broken()]

    def close(self) -> None:
        """Drop the batch and the buffers it leaves behind."""
        self._generator.close()
        del self._generator
        mx.clear_cache()

    def _decode(self) -> list[Sampled | Progressed]:
        started = time.monotonic()
        with mx.stream(self._stream):
            responses = self._generator._generation_batch.next()  # noqa: SLF001
        self._chunks.note_decode(time.monotonic() - started)
        return [self._sampled(response) for response in responses]

    def _decode_and_process(self, chunk: int, is_shared: bool) -> list[Sampled | Progressed]:  # noqa: FBT001
        self._generator.prefill_step_size = chunk
        # The prompt batch took its own copy when it was made.
        self._generator._prompt_batch.prefill_step_size = chunk  # noqa: SLF001
        before = sum(sequence.done_tokens for sequence in self._sequences.values())
        started = time.monotonic()
        prompts, responses = self._generator.next()
        spent_s = time.monotonic() - started
        outcomes: list[Sampled | Progressed] = [self._sampled(response) for response in responses]
        outcomes += [self._progressed(response) for response in prompts]
        processed = sum(sequence.done_tokens for sequence in self._sequences.values()) - before
        if processed > 0:
            self._chunks.note_chunk(processed, spent_s, is_shared=is_shared)
        return outcomes

    def _segments(
        self, prompt: list[int], cached_tokens: int, boundaries: tuple[int, ...]
    ) -> Iterator[list[int]]:
        """What is left of the prompt, cut where a checkpoint is to be taken."""
        places: set[int] = set()
        if not self._can_always_cut:
            places = set(boundaries) | set(range(0, len(prompt), CHECKPOINT_TOKENS))
        cuts = [place for place in sorted(places) if cached_tokens < place < len(prompt)]
        for start, end in zip([cached_tokens, *cuts], [*cuts, len(prompt)], strict=True):
            yield prompt[start:end]

    def _sampled(self, response: Any) -> Sampled:
        sequence = self._sequences[response.uid]
        sequence.is_decoding = True
        if response.finish_reason is None:
            return Sampled(sequence.key, int(response.token))
        del self._sequences[response.uid]
        rest = _rest(response.prompt_cache, response.all_tokens, sequence.checkpoints)
        return Sampled(sequence.key, int(response.token), _FINISH[response.finish_reason], rest)

    def _progressed(self, response: Any) -> Progressed:
        sequence = self._sequences[response.uid]
        sequence.done_tokens = response.progress[0]
        if response.end_of_prompt:
            sequence.is_decoding = True
        elif response.end_of_segment and not self._can_always_cut:
            caches, tokens = self._generator.extract_cache([response.uid])[response.uid]
            sequence.checkpoints[len(tokens)] = checkpoint_of(caches)
        done = sequence.cached_tokens + sequence.done_tokens
        return Progressed(sequence.key, done, is_done=response.end_of_prompt)

    def _broken(self) -> Iterator[Broken]:
        for sequence in self._sequences.values():
            if sequence.mask and sequence.mask.failure:
                yield Broken(sequence.key, sequence.mask.failure)

    def _uid_of(self, key: int) -> int:
        return next(uid for uid, sequence in self._sequences.items() if sequence.key == key)


_FINISH: dict[str, FinishReason] = {"stop": "stop_token", "length": "length"}


def _rest(caches: list[Any], tokens: list[int], checkpoints: dict[int, dict[int, Any]]) -> Rest:
    return Rest(tokens, SequenceState(caches, len(tokens), checkpoints))


@lru_cache(maxsize=64)
def _stop_sequences(stop_tokens: frozenset[int]) -> Any:
    return StopSequences([[token] for token in sorted(stop_tokens)] or None)
