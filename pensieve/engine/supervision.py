"""When a worker counts as wedged, when a dead one is started again, and when that is given up. Pure.

A worker that dies is started again after a pause that doubles from death to death; one that lived well in between
starts the count anew. A worker that keeps dying is a crash loop, and the reason is worth more than one more try.
"""

import math
from dataclasses import dataclass, field

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
DEATHS_OF_A_CRASH_LOOP = 5
CRASH_LOOP_S = 60.0


# Until a worker's first frame: Python and MLX are imported, from a slow disk at worst.
STARTING_S = 180.0
# A pass reads all weights and KV caches. A machine that is short of memory reads them back from its
# disk for that.
PAGED_IN_BYTES_S = 500 * 10**6


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """A worker is wedged that said nothing at so many looks, `look_s` apart, while somebody waited for it.

    Whatever takes longer is announced with the patience that it needs (`protocol.Begun`). Chunks of
    prompts take less than a third of this on any Mac (tests/engine/test_chunk_times.py), so they
    hardly ever need it.
    """

    look_s: float = 5.0
    silent_looks: int = 9

    def looks(self, patience_s: float, held_bytes: int = 0) -> int:
        """How many silent looks are too many.

        held_bytes: of weights and KV caches, which may have been paged out.
        """
        longest_s = max(patience_s, held_bytes / PAGED_IN_BYTES_S)
        return max(self.silent_looks, math.ceil(longest_s / self.look_s))


@dataclass(slots=True)
class RestartPolicy:
    """Remembers when the worker died lately; owned by the engine client."""

    deaths_s: list[float] = field(default_factory=list[float])

    def pause_after_death(self, now_s: float) -> float | None:
        """Seconds to wait before the next start; None where starting again is given up."""
        recent = [death for death in self.deaths_s if now_s - death < CRASH_LOOP_S]
        self.deaths_s = [*recent, now_s]
        if len(self.deaths_s) >= DEATHS_OF_A_CRASH_LOOP:
            return None
        return min(FIRST_PAUSE_S * 2 ** (len(self.deaths_s) - 1), LONGEST_PAUSE_S)
