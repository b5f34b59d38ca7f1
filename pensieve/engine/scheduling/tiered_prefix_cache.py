"""Prefix cache with a memory tier and an optional disk tier. Pure.

Used by the scheduler and by memory relief, which need not know where a prefix is. The tiers are
prefix_cache.py and engine/model/disk_prefix_cache.py.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from pensieve.engine.generation import Generation
from pensieve.engine.scheduling.backend import ReleasedSequence
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, CachedPrefix, PrefixCache
from pensieve.engine.scheduling.restore import Restore, Restored

# Shorter side requests are cheaper to process again than to keep.
_MIN_SIDE_TOKENS = 1024


class DiskTier(Protocol):
    """KV caches on disk."""

    @property
    def is_storing(self) -> bool:
        """Whether what is only in memory will be written soon."""
        ...

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        """Return how many first tokens `acquire` would give, at most all but one."""
        ...

    def acquire(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> Restore:
        """Return the restore of the longest complete prefix; it has read nothing yet."""
        ...

    def is_stored(self, prefix: CachedPrefix) -> bool:
        """Whether memory may evict the prefix without loss."""
        ...

    def spill(self, prefixes: PrefixCache) -> float | None:
        """Write some of what is only in memory; return the seconds until the next call.

        None if everything is written.
        """
        ...

    def close(self) -> None: ...


class NoDiskTier:
    is_storing = False

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        return 0

    def acquire(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> Restore:
        return Restored(None)

    def is_stored(self, prefix: CachedPrefix) -> bool:
        return False

    def spill(self, prefixes: PrefixCache) -> float | None:
        return None

    def close(self) -> None: ...


class TieredPrefixCache:
    """Inserts into and evicts from memory only: `spill` copies to disk."""

    def __init__(
        self,
        memory_tier: PrefixCache,
        disk_tier: DiskTier | None = None,
        throttle: Callable[[Restore], Restore] = lambda restore: restore,  # of restores from disk
    ) -> None:
        self._memory_tier = memory_tier
        self._disk_tier = disk_tier or NoDiskTier()
        self._throttle = throttle

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self._memory_tier.nbytes

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
        return self._memory_tier.evict(nbytes)

    def evict_stored(self) -> None:
        """Evict what is also on disk."""
        self._memory_tier.remove_if(self._disk_tier.is_stored)

    def evict_all(self) -> None:
        self._memory_tier.clear()

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
