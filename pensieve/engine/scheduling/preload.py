"""Brings the pinned prefixes of the last projects back from disk into memory while nothing runs.

So the first request of a project after a start finds its system prompt and tools in memory. One
part is read a step, and a request may come between any two steps. What is preloaded fills free
memory only and is evicted before anything else; once memory was short, nothing is preloaded any
more. Pure except for the clock and the log.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pensieve.engine.long_operations import READ_BACK_S, Announce, announce_nothing
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.protocol import Preloaded
from pensieve.engine.scheduling.disk_tier import DiskTier
from pensieve.engine.scheduling.prefix_cache import BLOCK_TOKENS, PrefixCache
from pensieve.engine.scheduling.restore import Restore

_log = logging.getLogger("pensieve.engine")

MAX_PREFIXES = 8
# Of the newest ones on disk: many may be almost the same, or damaged.
MAX_EXAMINED = 32
# Of the memory for KV caches: prefixes that no request may ever use should not fill it.
MEMORY_SHARE = 0.5
# In place of the first token after a prefix: a restore leaves one to process. No model has it.
_NEXT_TOKEN = -1


@dataclass(frozen=True, slots=True)
class _Unfinished:
    tokens: Sequence[int]
    restore: Restore


class Preload:
    """Owned by the tiered prefix cache; the worker's loop steps it while nothing runs."""

    def __init__(  # noqa: PLR0913 -- three have defaults
        self,
        memory_tier: PrefixCache,
        disk_tier: DiskTier,
        budget: KVBudget,
        *,
        announce: Announce = announce_nothing,  # called before each part is read
        report: Callable[[Preloaded], None] = lambda _: None,  # called once, after the last part
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory_tier = memory_tier
        self._disk_tier = disk_tier
        self._budget = budget
        self._announce = announce
        self._report = report
        self._clock = clock
        self._pinned: Iterator[Sequence[int]] | None = islice(disk_tier.pinned(), MAX_EXAMINED)
        self._unfinished: _Unfinished | None = None
        self._lengths: list[int] = []  # of the prefixes brought back
        self._spent_s = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the prefix that is being read."""
        return self._budget.sequence(len(self._unfinished.tokens)) if self._unfinished else 0

    def step(self) -> float | None:
        """Read one part; return the seconds until the next call, None if there is none."""
        if self._pinned is None:
            return None
        if self._unfinished is not None:
            self._announce("reading a stored prefix back", READ_BACK_S)
        began_s = self._clock()
        try:
            has_more = self._read_part(self._pinned)
        except Exception as error:  # noqa: BLE001 - MLX may raise anything; requests come first
            _log.warning("preloading failed, prefixes are read when requests need them: %s", error)
            has_more = False
        self._spent_s += self._clock() - began_s
        if has_more:
            return 0
        self.stop()
        return None

    def stop(self) -> int:
        """Preload nothing any more; return the bytes freed."""
        freed = self.nbytes
        if self._lengths:
            self._report(Preloaded(len(self._lengths), sum(self._lengths), self._spent_s))
            self._lengths = []
        self._pinned = self._unfinished = None
        return freed

    def _read_part(self, pinned: Iterator[Sequence[int]]) -> bool:
        """Read the next part; return False after the last one of the last prefix."""
        unfinished = self._unfinished
        if unfinished is None:
            tokens = next(pinned, None) if len(self._lengths) < MAX_PREFIXES else None
            if tokens and self._is_wanted(tokens):
                self._begin(tokens)
            return tokens is not None
        if not unfinished.restore.is_done:
            unfinished.restore.step()
        if unfinished.restore.is_done:
            self._finish(unfinished)
        return True

    def _begin(self, tokens: Sequence[int]) -> None:
        prompt = [*tokens, _NEXT_TOKEN]
        hashes = self._memory_tier.hashes(prompt)
        restore = self._disk_tier.acquire(hashes, prompt, is_use=False)
        self._unfinished = _Unfinished(tokens, restore)

    def _finish(self, unfinished: _Unfinished) -> None:
        self._unfinished = None
        tokens, hit = unfinished.tokens, unfinished.restore.hit
        # An incomplete prefix may end where its stored state does not: requests restore it.
        if hit and hit.cached_tokens == len(tokens) and not self._is_in_memory(tokens):
            self._memory_tier.insert_spare(tokens, hit.state)
            self._lengths.append(len(tokens))

    def _is_wanted(self, tokens: Sequence[int]) -> bool:
        limit = self._budget.kv_bytes * MEMORY_SHARE
        needed = self._budget.sequence(len(tokens))
        return self._memory_tier.nbytes + needed <= limit and not self._is_in_memory(tokens)

    def _is_in_memory(self, tokens: Sequence[int]) -> bool:
        """Whether memory has so much of the prefix that requests do not read it from disk."""
        in_memory = self._memory_tier.match([*tokens, _NEXT_TOKEN])
        return in_memory + BLOCK_TOKENS > len(tokens)
