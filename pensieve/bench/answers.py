"""What is asked of a server and what arrives, with times; the rates of both. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pensieve.daemon.health_client import Health

# Fewer tokens after the first one give no rate.
MIN_DECODED = 6


@dataclass(frozen=True, slots=True)
class Ask:
    text: str
    max_tokens: int
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer. Times are seconds since it, or the group that it belongs to, was sent.

    One event can have several tokens, so rates use the server's count.
    """

    arrivals_s: tuple[float, ...]  # of each event with text or thinking
    end_s: float
    prompt_tokens: int  # cached ones included
    cached_tokens: int
    output_tokens: int

    @property
    def first_token_s(self) -> float:
        return self.arrivals_s[0] if self.arrivals_s else self.end_s

    @property
    def processed_tokens(self) -> int:
        return self.prompt_tokens - self.cached_tokens

    @property
    def prefill_rate(self) -> float:
        """Return processed prompt tokens per second until the first token."""
        return self.processed_tokens / max(self.first_token_s, 1e-9)

    @property
    def decode_rate(self) -> float | None:
        """Return the tokens/s after the first one; None if they are too few."""
        return total_rate([self])


class Served(Protocol):
    """A server with a loaded model, as `HttpServed` asks it."""

    def answers(self, asks: Sequence[Ask], timeout_s: float) -> list[Answer]:
        """Ask at the same time. Raises `TimeoutError` if one is not complete after `timeout_s`."""
        ...

    def count_tokens(self, text: str) -> int: ...

    def health(self) -> Health: ...


def total_rate(answers: Sequence[Answer]) -> float | None:
    """Return the tokens/s of all while all of them decode; None if they are too few."""
    begin = max(answer.first_token_s for answer in answers)
    end = min(answer.end_s for answer in answers)
    tokens = sum(_tokens_between(answer, begin, end) for answer in answers)
    if tokens < MIN_DECODED * len(answers) or end <= begin:
        return None
    return tokens / (end - begin)


def _tokens_between(answer: Answer, begin: float, end: float) -> float:
    """Return the tokens after the first one that arrived then, by the share of the time."""
    decoding_s = answer.end_s - answer.first_token_s
    if decoding_s <= 0:
        return 0.0
    return max(answer.output_tokens - 1, 0) * min(1.0, (end - begin) / decoding_s)
