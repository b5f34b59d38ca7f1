"""A `backend.Backend` that counts instead of computing: small, honest about slots, prefill, removal and KV caches.

It samples the length of what it has seen so far, so every token of every answer can be told beforehand; and its KV
states know their tokens, so a hit that is not a true prefix is noticed at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pensieve.engine.generation import Generation
from pensieve.engine.scheduling.backend import PrefillProgress, ReleasedSequence, Sampled
from pensieve.engine.scheduling.prefix_cache import Hit

BYTES_PER_TOKEN = 10
# A prompt with it cannot be inserted.
REFUSED_TOKEN = 999_999


@dataclass
class RememberedState:
    """A KV state that is its tokens. `step`: it can only be cut at multiples of this, as checkpoints would allow."""

    seen: tuple[int, ...]
    step: int = 1

    @property
    def nbytes(self) -> int:
        return BYTES_PER_TOKEN * len(self.seen)

    def usable_tokens(self, tokens: int) -> int:
        tokens = min(tokens, len(self.seen))
        return tokens if tokens == len(self.seen) else tokens // self.step * self.step

    def trim(self, tokens: int) -> None:
        assert self.usable_tokens(tokens) == tokens
        self.seen = self.seen[:tokens]

    def copy(self, tokens: int) -> "RememberedState":
        assert self.usable_tokens(tokens) == tokens
        return RememberedState(self.seen[:tokens], self.step)


@dataclass
class Sequence:
    prompt: tuple[int, ...]
    left: int
    done: int
    sampled: tuple[int, ...] = ()

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.prompt + self.sampled

    @property
    def is_decoding(self) -> bool:
        return self.done == len(self.prompt)


@dataclass
class CountingBackend:
    """`is_bad` decides which sequence makes a step raise; `chunk` prompt tokens are processed in a step.

    KV states can be cut at multiples of `cut_step` alone.
    """

    is_bad: Callable[[tuple[int, ...]], bool] = lambda tokens: False
    chunk: int = 1000
    cut_step: int = 1
    sequences: dict[int, Sequence] = field(default_factory=dict)
    is_closed: bool = False
    peak: int = 0
    processed: int = 0

    def insert(self, key: int, generation: Generation, hit: Hit | None) -> None:
        prompt = generation.prompt_tokens
        if REFUSED_TOKEN in prompt:
            raise ValueError("a refused token")
        done = hit.cached_tokens if hit else 0
        if hit:
            assert isinstance(hit.state, RememberedState)
            assert hit.state.seen == prompt[:done]
            assert done < len(prompt)
        self.sequences[key] = Sequence(prompt, generation.max_tokens, done)
        self.peak = max(self.peak, len(self.sequences))

    def remove(self, key: int) -> ReleasedSequence | None:
        sequence = self.sequences.pop(key)
        return self._rest(sequence) if sequence.done else None

    def fork(self, key: int, tokens: int) -> Hit | None:
        rest = self._rest(self.sequences[key])
        usable = rest.state.usable_tokens(tokens)
        return Hit(rest.state.copy(usable), usable) if usable else None

    def step(self) -> list[Sampled | PrefillProgress]:
        assert not self.is_closed
        if any(self.is_bad(sequence.tokens) for sequence in self.sequences.values()):
            raise RuntimeError("boom")
        prompts = [key for key, sequence in self.sequences.items() if not sequence.is_decoding]
        outcomes: list[Sampled | PrefillProgress] = [
            self._sample(key) for key in list(self.sequences) if key not in prompts
        ]
        if prompts:
            outcomes.append(self._process(prompts[0]))
        return outcomes

    def close(self) -> None:
        self.is_closed = True

    def _process(self, key: int) -> PrefillProgress:
        sequence = self.sequences[key]
        new = min(self.chunk, len(sequence.prompt) - sequence.done)
        sequence.done += new
        self.processed += new
        return PrefillProgress(key, sequence.done, is_done=sequence.is_decoding)

    def _sample(self, key: int) -> Sampled:
        sequence = self.sequences[key]
        token = len(sequence.tokens)
        sequence.sampled += (token,)
        sequence.left -= 1
        if sequence.left:
            return Sampled(key, token)
        del self.sequences[key]
        return Sampled(key, token, "length", self._rest(sequence))

    def _rest(self, sequence: Sequence) -> ReleasedSequence:
        held = sequence.prompt[: sequence.done] + sequence.sampled
        return ReleasedSequence(held, RememberedState(held, self.cut_step))
