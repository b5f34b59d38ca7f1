"""What a prompt's tokens are called in `usage`: read from the cache, written to it, or neither. Their sum is the prompt.

Read is what needed no processing, asked for or not. Written is what was processed up to the last cache breakpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pensieve.api.messages.content_blocks import Ttl


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """A place in the prompt that a client marked with `cache_control`: after its first `tokens` tokens."""

    tokens: int
    ttl: Ttl = "5m"


@dataclass(frozen=True, slots=True)
class PromptUsage:
    """One prompt's tokens, parted."""

    read: int
    written_5m: int
    written_1h: int
    rest: int

    @property
    def written(self) -> int:
        """Written to the cache, for whatever time."""
        return self.written_5m + self.written_1h


def prompt_usage(
    prompt_tokens: int, cached_tokens: int, breakpoints: Sequence[Breakpoint]
) -> PromptUsage:
    """How `prompt_tokens` of which `cached_tokens` needed no processing are reported."""
    written: dict[Ttl, int] = {"5m": 0, "1h": 0}
    reached = cached_tokens
    for place in sorted(breakpoints, key=lambda place: place.tokens):
        written[place.ttl] += max(0, place.tokens - reached)
        reached = max(reached, place.tokens)
    return PromptUsage(
        read=cached_tokens,
        written_5m=written["5m"],
        written_1h=written["1h"],
        rest=prompt_tokens - reached,
    )
