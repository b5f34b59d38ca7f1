"""Spreads restores from disk between decode steps, as prefill chunks are spread.

Used by the scheduler in place of the disk tier. Pure except for the clock passed in.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing

from pensieve.engine.long_operations import READ_BACK_S, Announce, announce_nothing
from pensieve.engine.scheduling.backend import DiskTier, RestoreSteps
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer


class ThrottledDiskTier:
    """Disk tier whose restore steps pause while decoding is owed time."""

    def __init__(
        self,
        disk_tier: DiskTier,
        chunks: ChunkSizer,  # the batch's own: it measures what decoding is owed
        announce: Announce = announce_nothing,  # called before each part is read
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._disk_tier = disk_tier
        self._chunks = chunks
        self._announce = announce
        self._clock = clock

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        return self._disk_tier.match(hashes, tokens)

    def restore(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> RestoreSteps:
        with closing(self._disk_tier.restore(hashes, tokens)) as steps:
            while True:
                yield from self._pause_for_decoding()
                self._announce("reading a stored prefix back", READ_BACK_S)
                began_s = self._clock()
                try:
                    next(steps)
                except StopIteration as read:
                    return read.value
                finally:
                    self._chunks.note_other(self._clock() - began_s)
                yield

    def _pause_for_decoding(self) -> RestoreSteps:
        # An unchanged debt means that nothing decodes: waiting would never end.
        before_s = self._chunks.decode_debt_s + 1
        while 0 < self._chunks.decode_debt_s < before_s:
            before_s = self._chunks.decode_debt_s
            yield
