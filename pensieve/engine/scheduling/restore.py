"""How a cached prefix reaches its request: at once from memory, or one part a step from disk.

The scheduler steps it between decode steps. Pure except for the clock passed in.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pensieve.engine.long_operations import READ_BACK_S, Announce, announce_nothing
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer
from pensieve.engine.scheduling.prefix_cache import Hit


class Restore(Protocol):
    """A prefix on its way from a cache to a request. Drop it to abandon it."""

    @property
    def is_done(self) -> bool: ...

    @property
    def hit(self) -> Hit | None:
        """The whole prefix once `is_done`; None if nothing of it was usable."""
        ...

    def step(self) -> None:
        """Read one more part, or none for now. Not called once `is_done`."""
        ...


@dataclass(frozen=True, slots=True)
class Restored:
    """A prefix in memory, or the lack of one."""

    hit: Hit | None
    is_done: bool = True

    def step(self) -> None: ...


class ThrottledRestore:
    """Spreads the steps of a restore between decode steps, as prefill chunks are spread."""

    def __init__(
        self,
        restore: Restore,
        chunks: ChunkSizer,  # the batch's own: it measures what decoding is owed
        announce: Announce = announce_nothing,  # called before each part is read
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._restore = restore
        self._chunks = chunks
        self._announce = announce
        self._clock = clock
        self._last_debt_s = math.inf

    @property
    def is_done(self) -> bool:
        return self._restore.is_done

    @property
    def hit(self) -> Hit | None:
        return self._restore.hit

    def step(self) -> None:
        """Read the next part unless decoding is owed time."""
        debt_s = self._chunks.decode_debt_s
        # An unchanged debt means that nothing decodes: waiting would never end.
        if 0 < debt_s < self._last_debt_s:
            self._last_debt_s = debt_s
            return
        self._last_debt_s = math.inf
        self._announce("reading a stored prefix back", READ_BACK_S)
        began_s = self._clock()
        try:
            self._restore.step()
        finally:
            self._chunks.note_other(self._clock() - began_s)
