"""How many of a prompt's tokens were read from the cache, and how many count as written to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pensieve.api.messages.content_blocks import Breakpoint, Ttl


@dataclass(frozen=True, slots=True)
class PromptUsage:
    """Token counts, whose sum is the prompt."""

    read: int
    written_5m: int
    written_1h: int
    rest: int

    @property
    def written(self) -> int:
        return self.written_5m + self.written_1h


def prompt_usage(
    prompt_tokens: int, cached_tokens: int, breakpoints: Sequence[Breakpoint]
) -> PromptUsage:
    """Split `prompt_tokens`, of which the first `cached_tokens` needed no processing.

    Tokens count as read if they needed none, with or without a breakpoint, and as written if they
    were processed and precede the last cache breakpoint.
    """
    written: dict[Ttl, int] = {"5m": 0, "1h": 0}
    reached = cached_tokens
    for mark in sorted(breakpoints, key=lambda mark: mark.tokens):
        written[mark.ttl] += max(0, mark.tokens - reached)
        reached = max(reached, mark.tokens)
    return PromptUsage(
        read=cached_tokens,
        written_5m=written["5m"],
        written_1h=written["1h"],
        rest=prompt_tokens - reached,
    )
