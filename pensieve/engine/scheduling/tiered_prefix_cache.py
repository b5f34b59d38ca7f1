"""Prefix cache with a memory tier and an optional disk tier. Pure.

Used by the scheduler and by memory relief, which need not know where a prefix is. The tiers are
prefix_cache.py and engine/model/disk_prefix_cache.py.
"""

from collections.abc import Callable, Sequence

from pensieve.engine.generation import Generation
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.scheduling.backend import ReleasedSequence
from pensieve.engine.scheduling.disk_tier import DiskTier, NoDiskTier
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, PrefixCache
from pensieve.engine.scheduling.preload import Preload
from pensieve.engine.scheduling.restore import Restore, Restored

# Shorter side requests are cheaper to process again than to keep.
_MIN_SIDE_TOKENS = 1024


class TieredPrefixCache:
    """Inserts into and evicts from memory only: `spill` copies to disk."""

    def __init__(
        self,
        memory_tier: PrefixCache,
        disk_tier: DiskTier | None = None,
        throttle: Callable[[Restore], Restore] = lambda restore: restore,  # of restores from disk
        preload: Preload | None = None,  # over the same tiers; None: nothing is preloaded
    ) -> None:
        self._memory_tier = memory_tier
        self._disk_tier = disk_tier or NoDiskTier()
        self._throttle = throttle
        self._preload = preload or Preload(memory_tier, NoDiskTier(), KVBudget(0, 0))

    @property
    def nbytes(self) -> int:
        """Bytes in memory, those of an unfinished preload included."""
        return self._memory_tier.nbytes + self._preload.nbytes

    @property
    def is_storing(self) -> bool:
        """Whether what is only in memory will be on disk soon."""
        return self._disk_tier.is_storing

    def match(self, tokens: Sequence[int]) -> int:
        """Return how many first tokens `acquire` would give."""
        on_disk = self._match_on_disk(tokens)
        return on_disk or self._memory_tier.match(tokens)

    def acquire(self, tokens: Sequence[int]) -> Restore:
        """Take the longest prefix."""
        if not self._match_on_disk(tokens):
            return Restored(self._memory_tier.acquire(tokens))
        hashes = self._memory_tier.hashes(tokens)
        return self._throttle(self._disk_tier.acquire(hashes, tokens))

    def insert(self, generation: Generation, released: ReleasedSequence) -> None:
        """Cache what a generation leaves, unless that is cheaper to process again."""
        is_side = generation.priority in {"side", "batch"}
        if is_side and len(released.tokens) < _MIN_SIDE_TOKENS:
            return
        pinned = min(generation.pinned_tokens, len(released.tokens))
        self._memory_tier.insert(
            released.tokens, released.state, pinned_tokens=pinned, is_side=is_side
        )

    def evict(self, nbytes: int) -> int:
        """Evict until `nbytes` are freed or memory has no prefix left; return the bytes freed."""
        freed = self._preload.stop()
        return freed + self._memory_tier.evict(nbytes - freed)

    def evict_stored(self) -> None:
        """Evict what is also on disk."""
        self._preload.stop()
        self._memory_tier.remove_if(self._disk_tier.is_stored)

    def evict_all(self) -> None:
        self._preload.stop()
        self._memory_tier.clear()

    def preload(self) -> float | None:
        """Read one part of the pinned prefixes on disk; return the seconds until the next call.

        None if all are in memory, or memory was short once.
        """
        return self._preload.step()

    def spill(self) -> float | None:
        """Write some of what is only in memory to disk; return the seconds until the next call.

        None if everything is written.
        """
        return self._disk_tier.spill(self._memory_tier)

    def close(self) -> None:
        """Wait for queued writes, within a limit."""
        self._disk_tier.close()

    def _match_on_disk(self, tokens: Sequence[int]) -> int:
        """Return how many first tokens the disk has; 0 if memory has about as many."""
        on_disk = self._disk_tier.match(self._memory_tier.hashes(tokens), tokens)
        is_worth_reading = on_disk >= self._memory_tier.match(tokens) + BLOCK_TOKENS
        return on_disk if is_worth_reading else 0
