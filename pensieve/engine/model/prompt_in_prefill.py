# pyright: basic
"""A prompt that is being processed; see batch.py."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from pensieve.engine.generation import Generation
from pensieve.engine.grammar.mask import TokenMask
from pensieve.engine.pictures import PromptPicture
from pensieve.engine.scheduling.prefill_chunks import PromptRest
from pensieve.engine.speculation.drafter import Drafter


@dataclass(slots=True)
class PromptInPrefill:
    """A sequence in prefill."""

    key: int
    generation: Generation
    caches: list[Any]  # batch caches of one row
    done: int  # the prompt tokens that the caches hold
    checkpoint_ends: deque[int]  # token counts at which a checkpoint is due, ascending
    mask: TokenMask | None
    drafter: Drafter
    checkpoints: dict[int, dict[int, Any]] = field(default_factory=dict[int, dict[int, Any]])
    unseen: PromptPicture | None = None  # the first picture that the tower has to look at

    @property
    def tokens(self) -> list[int]:
        return list(self.generation.prompt_tokens[: self.done])

    @property
    def rest(self) -> PromptRest:
        return PromptRest(len(self.generation.prompt_tokens) - self.done, self.done)

    def tokens_within(self, chunk: int) -> int:
        """Return the length of the next chunk.

        It ends at the prompt's end, at a checkpoint, or before a picture.
        """
        return min(chunk, min(self.stops) - self.done)

    @property
    def stops(self) -> list[int]:
        """Token counts that the next chunk must not exceed."""
        picture = [max(self.unseen.start, self.done)] if self.unseen else []
        return [*picture, *list(self.checkpoint_ends)[:1], len(self.generation.prompt_tokens)]

    def own_caches(self) -> list[Any]:
        return [cache.extract(0) for cache in self.caches]
