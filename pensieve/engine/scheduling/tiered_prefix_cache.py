"""What is kept of sequences gone by, in memory (prefix_cache.py) and on disk (engine/model/disk_prefix_cache.py): who asks need not know where. Pure."""

from collections.abc import Sequence

from pensieve.engine.scheduling.backend import DiskTier, ReleasedSequence, RestoreSteps
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, Hit, PrefixCache
from pensieve.engine.scheduling.request_queue import Request, common_prefix_length

# Side requests shorter than this are processed again sooner than they are worth keeping.
_MIN_SIDE_TOKENS = 1024


def waits_for(live: Request, worker: Request | None) -> bool:
    """The prompt in work holds more of this one's prefix than is kept anywhere: it is copied when that is done."""
    if worker is None:
        return False
    shared = common_prefix_length(live.generation.prompt_tokens, worker.generation.prompt_tokens)
    return shared >= live.cached_tokens + BLOCK_TOKENS


class TieredPrefixCache:
    """Finds, takes and keeps. `archive` fills itself from what is in memory."""

    def __init__(self, in_memory: PrefixCache, archive: DiskTier | None) -> None:
        self._in_memory = in_memory
        self._archive = archive

    def match(self, tokens: Sequence[int]) -> int:
        """How many first tokens there are."""
        return max(self._in_memory.match(tokens), self._on_disk(tokens))

    def acquire(self, tokens: Sequence[int]) -> Hit | RestoreSteps | None:
        """The longest prefix there is; where the disk has more of it, what reads it back."""
        if self._archive and self._on_disk(tokens) >= self._in_memory.match(tokens) + BLOCK_TOKENS:
            return self._archive.restore(self._in_memory.hashes(tokens), tokens)
        return self._in_memory.acquire(tokens)

    def insert(self, live: Request, rest: ReleasedSequence) -> None:
        """Keep what is left of a generation, where it is worth it."""
        asked = live.generation
        is_side = asked.priority in {"side", "batch"}
        if is_side and len(rest.tokens) < _MIN_SIDE_TOKENS:
            return
        pinned = min(asked.pinned_tokens, len(rest.tokens))
        self._in_memory.insert(rest.tokens, rest.state, pinned_tokens=pinned, is_side=is_side)

    def _on_disk(self, tokens: Sequence[int]) -> int:
        if self._archive is None:
            return 0
        return self._archive.match(self._in_memory.hashes(tokens), tokens)
