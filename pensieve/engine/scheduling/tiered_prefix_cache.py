"""Prefix cache with a memory tier and an optional disk tier; the scheduler uses it. Pure.

The tiers are prefix_cache.py and engine/model/disk_prefix_cache.py.
"""

from collections.abc import Sequence

from pensieve.engine.scheduling.backend import DiskTier, ReleasedSequence, RestoreSteps
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, Hit, PrefixCache
from pensieve.engine.scheduling.request_queue import Request, common_prefix_length

# Shorter side requests are cheaper to process again than to keep.
_MIN_SIDE_TOKENS = 1024


def waits_for(request: Request, prefilling: Request | None) -> bool:
    """Whether the prompt in prefill will give `request` a longer prefix than any cache has now."""
    if prefilling is None:
        return False
    prompt_tokens = request.generation.prompt_tokens
    shared = common_prefix_length(prompt_tokens, prefilling.generation.prompt_tokens)
    return shared >= request.cached_tokens + BLOCK_TOKENS


class TieredPrefixCache:
    """Inserts into memory only: the disk tier copies from there by itself."""

    def __init__(self, memory_tier: PrefixCache, disk_tier: DiskTier | None) -> None:
        self._memory_tier = memory_tier
        self._disk_tier = disk_tier

    def match(self, tokens: Sequence[int]) -> int:
        """Return how many first tokens `acquire` would give."""
        return max(self._memory_tier.match(tokens), self._match_on_disk(tokens))

    def acquire(self, tokens: Sequence[int]) -> Hit | RestoreSteps | None:
        """Take the longest prefix; return steps to run first if disk has more of it than memory."""
        if (
            self._disk_tier
            and self._match_on_disk(tokens) >= self._memory_tier.match(tokens) + BLOCK_TOKENS
        ):
            return self._disk_tier.restore(self._memory_tier.hashes(tokens), tokens)
        return self._memory_tier.acquire(tokens)

    def insert(self, request: Request, released: ReleasedSequence) -> None:
        """Cache what a request leaves, unless that is cheaper to process again."""
        generation = request.generation
        is_side = generation.priority in {"side", "batch"}
        if is_side and len(released.tokens) < _MIN_SIDE_TOKENS:
            return
        pinned = min(generation.pinned_tokens, len(released.tokens))
        self._memory_tier.insert(
            released.tokens, released.state, pinned_tokens=pinned, is_side=is_side
        )

    def _match_on_disk(self, tokens: Sequence[int]) -> int:
        if self._disk_tier is None:
            return 0
        return self._disk_tier.match(self._memory_tier.hashes(tokens), tokens)
