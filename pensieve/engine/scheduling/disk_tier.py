"""What the prefix cache needs of its disk tier: a protocol, and the lack of a disk tier.

Implemented by engine/model/disk_prefix_cache.py. No files.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from pensieve.engine.scheduling.prefix_cache import CachedPrefix, PrefixCache
from pensieve.engine.scheduling.restore import Restore, Restored


class DiskTier(Protocol):
    """KV caches on disk."""

    @property
    def is_storing(self) -> bool:
        """Whether what is only in memory will be written soon."""
        ...

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        """Return how many first tokens `acquire` would give, at most all but one."""
        ...

    def acquire(
        self, hashes: Sequence[bytes], tokens: Sequence[int], *, is_use: bool = True
    ) -> Restore:
        """Return the restore of the longest complete prefix; it has read nothing yet.

        is_use: whether a request needs it, which keeps it on disk longer.
        """
        ...

    def pinned(self) -> Iterator[Sequence[int]]:
        """Yield the pinned prefixes, most recently used first; they may be incomplete."""
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

    def acquire(
        self, hashes: Sequence[bytes], tokens: Sequence[int], *, is_use: bool = True
    ) -> Restore:
        return Restored(None)

    def pinned(self) -> Iterator[Sequence[int]]:
        return iter(())

    def is_stored(self, prefix: CachedPrefix) -> bool:
        return False

    def spill(self, prefixes: PrefixCache) -> float | None:
        return None

    def close(self) -> None: ...
