"""What the scheduler needs of a batch, and what it says about what it does. Values and protocols; no MLX."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pensieve.engine.generation import FinishReason, Generation
from pensieve.engine.scheduling.prefix_cache import Hit, KVState


@dataclass(frozen=True, slots=True)
class ReleasedSequence:
    """A sequence that left the batch: its tokens, and the KV caches that hold exactly those."""

    tokens: Sequence[int]
    state: KVState


@dataclass(frozen=True, slots=True)
class Sampled:
    """`token_id` was sampled for `key`. With the last one, `finish` says why and `rest` hands the sequence over."""

    key: int
    token_id: int
    finish: FinishReason | None = None
    rest: ReleasedSequence | None = None


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """So many of `key`'s prompt tokens are in the KV cache; `is_done` when decoding begins."""

    key: int
    prompt_tokens: int
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class SequenceFailed:
    """`key` cannot go on, through no fault of the others; it is still to be removed."""

    key: int
    error: Exception


Outcome = Sampled | PrefillProgress | SequenceFailed


# What is on disk comes a part at a step, or a pause (restore_throttle.py); it returns what all parts make up.
RestoreSteps = Generator[None, None, Hit | None]


class Backend(Protocol):
    """A batch of sequences that decodes together (engine/model/batch.py)."""

    def insert(self, key: int, generation: Generation, hit: Hit | None) -> None:
        """Take one more sequence in, which goes on from the KV caches of `hit`."""
        ...

    def remove(self, key: int) -> ReleasedSequence | None:
        """Take a sequence out, in whatever state it is; None where it has not got anywhere."""
        ...

    def fork(self, key: int, tokens: int) -> Hit | None:
        """A copy of a sequence's KV caches for at most its first `tokens`; it goes on undisturbed."""
        ...

    def step(self) -> list[Outcome]:
        """Decode a token for all, and process at most one chunk of a prompt. Any exception makes the backend unusable."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class DiskTier(Protocol):
    """KV caches on disk (engine/model/disk_prefix_cache.py)."""

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        """How many first tokens of a sequence with these block hashes could be restored, at least one short of all."""
        ...

    def restore(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> RestoreSteps:
        """Read the longest prefix back that can be had whole; None in the end where there is none after all."""
        ...
