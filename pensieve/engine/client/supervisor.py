"""Policies of the engine client: when a worker counts as hung, when a dead one is restarted, and
when that is pointless. Pure.

A worker that dies is restarted after a pause that doubles from death to death. Five deaths within a
minute, or five of the same cause without a finished answer in between, are a crash loop: the engine
then fails and reports the cause.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

from pensieve.engine.generation import RestartCause

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 15.0
DEATHS_OF_A_CRASH_LOOP = 5
CRASH_LOOP_S = 60.0

# Until a worker's first frame: it imports Python modules, from a slow disk at worst.
STARTING_S = 180.0
# For a worker to write its last prefixes to disk when the server stops.
STOP_TIMEOUT_S = 2.0
# A pass reads all weights and KV caches. A machine that is short of memory pages them in from its
# disk.
PAGED_IN_BYTES_S = 500 * 10**6


@dataclass(frozen=True, slots=True)
class HealthCheckPolicy:
    """A worker is hung if it sent nothing for `max_missed` checks while a request waited for it.

    Longer work is announced with its own timeout (`protocol.Begun`). Prefill chunks take less than
    a third of this on any Mac (tests/engine/scheduling/test_chunk_times.py) and rarely need one.
    """

    interval_s: float = 5.0
    max_missed: int = 9

    def max_missed_within(self, timeout_s: float, resident_bytes: int = 0) -> int:
        """Return the number of silent checks that mean a hung worker.

        timeout_s: announced by the worker. resident_bytes: weights and KV caches, which may have
        been paged out.
        """
        longest_s = max(timeout_s, resident_bytes / PAGED_IN_BYTES_S)
        return max(self.max_missed, math.ceil(longest_s / self.interval_s))


@dataclass(frozen=True, slots=True)
class IdlePolicy:
    """When an idle worker is ended to release all its memory."""

    unload_s: float = 0.0  # of idleness; 0: never
    # For the worker to exit; it takes at most 15 s (engine/worker/worker.py).
    timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Death:
    message: str
    cause: str | None = None  # its activity and how it ended; None if it was idle
    kind: RestartCause = "idle"


@dataclass(slots=True)
class RestartPolicy:
    """Remembers recent deaths and their causes; owned by the engine client."""

    deaths_s: list[float] = field(default_factory=list[float])
    losses_s: list[float] = field(default_factory=list[float])  # of another machine
    deaths_by_cause: Counter[str] = field(default_factory=Counter[str])
    # Whether a worker died while idle. A preload may have killed it, and would kill the next ones.
    has_died_idle: bool = False

    def pause_after_death(self, now_s: float, death: Death) -> float | None:
        """Record a death; return the seconds until the restart, None in a crash loop.

        Another machine that is out of reach now may be there later.
        """
        if death.kind == "host":
            self.losses_s = _within(CRASH_LOOP_S, self.losses_s, now_s)
            return _pause_s(len(self.losses_s))
        self.deaths_s = _within(CRASH_LOOP_S, self.deaths_s, now_s)
        if death.cause:
            self.deaths_by_cause[death.cause] += 1
        else:
            self.has_died_idle = True
        deaths = max(len(self.deaths_s), self.deaths_by_cause[death.cause or ""])
        if deaths >= DEATHS_OF_A_CRASH_LOOP:
            return None
        return _pause_s(len(self.deaths_s))

    def note_finished(self) -> None:
        """Forget the causes: an answer was finished, so none of them breaks every request."""
        self.deaths_by_cause.clear()


def _within(limit_s: float, moments_s: list[float], now_s: float) -> list[float]:
    """Return the moments of the last `limit_s`, and now."""
    return [*(moment_s for moment_s in moments_s if now_s - moment_s < limit_s), now_s]


def _pause_s(deaths: int) -> float:
    return min(FIRST_PAUSE_S * 2 ** (deaths - 1), MAX_PAUSE_S)
