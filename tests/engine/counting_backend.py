"""A `scheduler.Backend` that counts instead of computing: small, honest about slots, prefill and removal."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pensieve.engine.generation import Generation
from pensieve.engine.scheduler import Progressed, Sampled


@dataclass
class CountingBackend:
    """Samples the length of what it has seen so far, one prefill at a time; `is_bad` decides which sequence raises."""

    is_bad: Callable[[tuple[int, ...]], bool] = lambda tokens: False
    waiting: list[int] = field(default_factory=list)
    tokens: dict[int, tuple[int, ...]] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)
    is_closed: bool = False
    peak: int = 0

    def insert(self, key: int, generation: Generation) -> None:
        if -1 in generation.prompt_tokens:
            raise ValueError("a negative token")
        self.waiting.append(key)
        self.tokens[key] = generation.prompt_tokens
        self.left[key] = generation.max_tokens
        self.peak = max(self.peak, len(self.tokens))

    def remove(self, keys: Iterable[int]) -> None:
        for key in keys:
            del self.tokens[key], self.left[key]
            self.waiting = [other for other in self.waiting if other != key]

    def step(self) -> list[Sampled | Progressed]:
        assert not self.is_closed
        if any(self.is_bad(tokens) for tokens in self.tokens.values()):
            raise RuntimeError("boom")
        outcomes: list[Sampled | Progressed] = [
            self._sample(key) for key in list(self.tokens) if key not in self.waiting
        ]
        if self.waiting:
            key = self.waiting.pop(0)
            outcomes.append(Progressed(key, len(self.tokens[key])))
        return outcomes

    def close(self) -> None:
        self.is_closed = True

    def _sample(self, key: int) -> Sampled:
        token = len(self.tokens[key])
        self.tokens[key] += (token,)
        self.left[key] -= 1
        if self.left[key]:
            return Sampled(key, token, None)
        self.remove([key])
        return Sampled(key, token, "length")
