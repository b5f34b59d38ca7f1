"""What comes back from disk takes turns with whoever decodes, as prompts that are processed do. Pure but for the clock handed in."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing

from pensieve.engine.long_operations import READ_BACK_S, Announce, announce_nothing
from pensieve.engine.scheduling.backend import DiskTier, RestoreSteps
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer


class ThrottledDiskTier:
    """An archive whose readings wait, a step at a time, for as long as decoding has its share coming."""

    def __init__(
        self,
        archive: DiskTier,
        chunks: ChunkSizer,
        announce: Announce = announce_nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """chunks: the batch's own, which knows what decoding is owed. announce: called before each
        part is read.
        """
        self._archive = archive
        self._chunks = chunks
        self._announce = announce
        self._clock = clock

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        """As the archive says."""
        return self._archive.match(hashes, tokens)

    def restore(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> RestoreSteps:
        """As the archive does, with pauses."""
        with closing(self._archive.restore(hashes, tokens)) as reading:
            while True:
                yield from self._turns_of_decoding()
                self._announce("reading a stored prefix back", READ_BACK_S)
                began_s = self._clock()
                try:
                    next(reading)
                except StopIteration as read:
                    return read.value
                finally:
                    self._chunks.note_other(self._clock() - began_s)
                yield

    def _turns_of_decoding(self) -> RestoreSteps:
        """Nobody decodes where, since the last turn, none of what is owed was paid."""
        before_s = self._chunks.decode_debt_s + 1
        while 0 < self._chunks.decode_debt_s < before_s:
            before_s = self._chunks.decode_debt_s
            yield
