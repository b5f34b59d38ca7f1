"""What the scheduler needs of a batch: a protocol and its values.

Implemented by engine/model/batch.py. No MLX.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pensieve.engine.generation import DraftCounts, FinishReason, Generation, Logprobs
from pensieve.engine.scheduling.prefix_cache import Hit, KVState


@dataclass(frozen=True, slots=True)
class ReleasedSequence:
    """A sequence that left the batch. `state` holds exactly `tokens`."""

    tokens: Sequence[int]
    state: KVState


@dataclass(frozen=True, slots=True)
class Sampled:
    key: int
    tokens: tuple[int, ...]  # at least one
    finish: FinishReason | None = None  # set with the last token
    released: ReleasedSequence | None = None  # with the last token, for the prefix cache
    drafts: DraftCounts | None = None  # of the step; None: there were none
    logprobs: tuple[Logprobs, ...] = ()  # of the tokens; none if the generation asks for none


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    key: int
    prompt_tokens: int  # in the KV cache by now
    is_done: bool = False  # decoding begins


@dataclass(frozen=True, slots=True)
class SequenceFailed:
    """One sequence failed and the others are intact. The scheduler still has to remove it."""

    key: int
    error: Exception


Outcome = Sampled | PrefillProgress | SequenceFailed


class Backend(Protocol):
    """A batch of sequences that decodes together."""

    def insert(self, key: int, generation: Generation, hit: Hit | None) -> None:
        """Add a sequence that continues from the KV caches of `hit`."""
        ...

    def remove(self, key: int) -> ReleasedSequence | None:
        """Remove a sequence in any state; return None if nothing of it is cached yet."""
        ...

    def fork(self, key: int, tokens: int) -> Hit | None:
        """Copy the KV caches of at most the first `tokens` of a running sequence."""
        ...

    def step(self) -> list[Outcome]:
        """Decode the next tokens of all sequences and process at most one chunk, of one prompt or
        of several short ones.

        The backend is unusable after any exception.
        """
        ...

    def close(self) -> None: ...
