"""A fake `Backend` that counts tokens, with real slots, prefill, removal and KV states.

It samples the length of the sequence so far, so that every token of every answer is known in
advance. Its KV states know their tokens, so that a hit that is not a true prefix fails at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from pensieve.engine.generation import Generation
from pensieve.engine.scheduling.backend import PrefillProgress, ReleasedSequence, Sampled
from pensieve.engine.scheduling.prefix_cache import Hit

BYTES_PER_TOKEN = 10
# Inserting a prompt that contains it raises.
REFUSED_TOKEN = 999_999


@dataclass
class RememberedState:
    """A KV state that remembers its tokens."""

    seen: tuple[int, ...]
    step: int = 1  # it can be trimmed to multiples of this, like an architecture with checkpoints

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
    remaining: int
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
    # A step raises if this holds for the tokens of any sequence.
    is_bad: Callable[[tuple[int, ...]], bool] = lambda tokens: False
    chunk: int = 1000  # prompt tokens processed in a step
    trim_step: int = 1  # KV states can be trimmed to multiples of this
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
        return self._release(sequence) if sequence.done else None

    def fork(self, key: int, tokens: int) -> Hit | None:
        released = self._release(self.sequences[key])
        usable = released.state.usable_tokens(tokens)
        return Hit(released.state.copy(usable), usable) if usable else None

    def step(self) -> list[Sampled | PrefillProgress]:
        assert not self.is_closed
        if any(self.is_bad(sequence.tokens) for sequence in self.sequences.values()):
            raise RuntimeError("boom")
        prompts = [key for key, sequence in self.sequences.items() if not sequence.is_decoding]
        outcomes: list[Sampled | PrefillProgress] = [
            self._sample(key) for key in list(self.sequences) if key not in prompts
        ]
        return outcomes + self._process(prompts)

    def close(self) -> None:
        self.is_closed = True

    def _process(self, keys: list[int]) -> list[PrefillProgress]:
        """Process a chunk of the first prompt, or the first ones to their ends."""
        room = self.chunk
        outcomes: list[PrefillProgress] = []
        for key in keys:
            sequence = self.sequences[key]
            new = min(room, len(sequence.prompt) - sequence.done)
            if outcomes and new < len(sequence.prompt) - sequence.done:
                break
            sequence.done += new
            self.processed += new
            room -= new
            outcomes.append(PrefillProgress(key, sequence.done, is_done=sequence.is_decoding))
        return outcomes

    def _sample(self, key: int) -> Sampled:
        sequence = self.sequences[key]
        token = len(sequence.tokens)
        sequence.sampled += (token,)
        sequence.remaining -= 1
        if sequence.remaining:
            return Sampled(key, (token,))
        del self.sequences[key]
        return Sampled(key, (token,), "length", self._release(sequence))

    def _release(self, sequence: Sequence) -> ReleasedSequence:
        tokens = sequence.prompt[: sequence.done] + sequence.sampled
        return ReleasedSequence(tokens, RememberedState(tokens, self.trim_step))
