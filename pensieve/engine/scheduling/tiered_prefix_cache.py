"""What is kept of sequences gone by, in memory (prefix_cache.py) and on disk (engine/model/disk_prefix_cache.py): who asks need not know where. Pure."""

from collections.abc import Sequence

from pensieve.engine.scheduling.backend import Archive, Reading, Rest
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, Hit, PrefixCache
from pensieve.engine.scheduling.request_queue import Live, shared_tokens

# Side requests shorter than this are processed again sooner than they are worth keeping.
_LEAST_SIDE_TOKENS = 1024


def waits_for(live: Live, worker: Live | None) -> bool:
    """The prompt in work holds more of this one's prefix than is kept anywhere: it is copied when that is done."""
    if worker is None:
        return False
    shared = shared_tokens(live.generation.prompt_tokens, worker.generation.prompt_tokens)
    return shared >= live.cached_tokens + BLOCK_TOKENS


class KeptPrefixes:
    """Finds, takes and keeps. `archive` fills itself from what is in memory."""

    def __init__(self, in_memory: PrefixCache, archive: Archive | None) -> None:
        self._in_memory = in_memory
        self._archive = archive

    def find(self, tokens: Sequence[int]) -> int:
        """How many first tokens there are."""
        return max(self._in_memory.find(tokens), self._on_disk(tokens))

    def take(self, tokens: Sequence[int]) -> Hit | Reading | None:
        """The longest prefix there is; where the disk has more of it, what reads it back."""
        if self._archive and self._on_disk(tokens) >= self._in_memory.find(tokens) + BLOCK_TOKENS:
            return self._archive.restore(self._in_memory.hashes(tokens), tokens)
        return self._in_memory.take(tokens)

    def keep(self, live: Live, rest: Rest) -> None:
        """Keep what is left of a generation, where it is worth it."""
        asked = live.generation
        is_side = asked.priority in {"side", "batch"}
        if is_side and len(rest.tokens) < _LEAST_SIDE_TOKENS:
            return
        pinned = min(asked.pinned_tokens, len(rest.tokens))
        self._in_memory.keep(rest.tokens, rest.state, pinned_tokens=pinned, is_side=is_side)

    def _on_disk(self, tokens: Sequence[int]) -> int:
        if self._archive is None:
            return 0
        return self._archive.held_tokens(self._in_memory.hashes(tokens), tokens)
