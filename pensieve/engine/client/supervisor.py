"""When a worker counts as wedged, when a dead one is started again, and when that is given up. Pure.

A worker that dies is started again after a pause that doubles from death to death. A worker that
keeps dying is a crash loop, and the reason is worth more than one more try: by the clock, or by one
cause again and again, however far apart.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 15.0
DEATHS_OF_A_CRASH_LOOP = 5
CRASH_LOOP_S = 60.0


# Until a worker's first frame: Python and MLX are imported, from a slow disk at worst.
STARTING_S = 180.0
# A pass reads all weights and KV caches. A machine that is short of memory reads them back from its
# disk for that.
PAGED_IN_BYTES_S = 500 * 10**6


@dataclass(frozen=True, slots=True)
class HealthCheckPolicy:
    """A worker is wedged that said nothing at so many looks, `look_s` apart, while somebody waited for it.

    Whatever takes longer is announced with the patience that it needs (`protocol.Begun`). Chunks of
    prompts take less than a third of this on any Mac (tests/engine/scheduling/test_chunk_times.py), so they
    hardly ever need it.
    """

    interval_s: float = 5.0
    max_missed: int = 9

    def max_missed_within(self, patience_s: float, held_bytes: int = 0) -> int:
        """How many silent looks are too many.

        held_bytes: of weights and KV caches, which may have been paged out.
        """
        longest_s = max(patience_s, held_bytes / PAGED_IN_BYTES_S)
        return max(self.max_missed, math.ceil(longest_s / self.interval_s))


@dataclass(frozen=True, slots=True)
class IdlePolicy:
    """When a worker without work ends, and with it all its memory."""

    unload_s: float = 0.0  # of idleness; 0 never
    timeout_s: float = (
        20.0  # for its end; the worker itself takes at most 15 s (engine/worker/worker.py)
    )


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended by itself."""

    message: str
    cause: str | None = None  # what it was doing, and how it ended; None where it had nothing to do


@dataclass(slots=True)
class RestartPolicy:
    """Remembers when and of what the worker died lately; owned by the engine client."""

    deaths_s: list[float] = field(default_factory=list[float])
    deaths_by_cause: Counter[str] = field(default_factory=Counter[str])

    def pause_after_death(self, now_s: float, death: Death) -> float | None:
        """Return the seconds until the next start; None where starting again is given up."""
        recent = [death for death in self.deaths_s if now_s - death < CRASH_LOOP_S]
        self.deaths_s = [*recent, now_s]
        if death.cause:
            self.deaths_by_cause[death.cause] += 1
        deaths = max(len(self.deaths_s), self.deaths_by_cause[death.cause or ""])
        if deaths >= DEATHS_OF_A_CRASH_LOOP:
            return None
        return min(FIRST_PAUSE_S * 2 ** (len(self.deaths_s) - 1), MAX_PAUSE_S)

    def note_finished(self) -> None:
        """An answer came to its end: no cause so far makes the engine useless."""
        self.deaths_by_cause.clear()
