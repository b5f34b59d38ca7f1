"""The requests that are open, the last ones that ended, and the speed of the last hour.

One per server, used on its event loop alone. Everything is bounded and stays in memory.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from statistics import median

from pensieve.server.activity.record import PHASES, Clock, Listener, RequestRecord

MAX_RECENT = 50
INTERVAL_S = 10
MAX_INTERVALS = 360


@dataclass(slots=True)
class Interval:
    began_at: int  # Unix seconds, a multiple of `INTERVAL_S`
    tokens: int = 0  # of all answers, without the first one of each
    busy_s: float = 0.0  # that they took, one at a time or together
    first_token_s: list[float] = field(default_factory=list[float])

    @property
    def tokens_per_second(self) -> float | None:
        return self.tokens / self.busy_s if self.busy_s else None

    @property
    def median_first_token_s(self) -> float | None:
        return median(self.first_token_s) if self.first_token_s else None


class Activity:
    """Opens and closes the records of requests, and tells listeners of them."""

    def __init__(
        self,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        self._listeners: list[Listener] = []
        self._clock = clock
        self._wall_clock = wall_clock
        self._open: dict[str, RequestRecord] = {}
        self._recent: deque[RequestRecord] = deque(maxlen=MAX_RECENT)
        self._intervals: deque[Interval] = deque(maxlen=MAX_INTERVALS)
        self._last_token_at = 0.0

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self._wall_clock()

    @property
    def requests(self) -> list[RequestRecord]:
        """The open ones that generate, oldest first."""
        return [record for record in self._open.values() if record.generates]

    @property
    def recent(self) -> list[RequestRecord]:
        """Those that generated, newest first."""
        return list(reversed(self._recent))

    @property
    def last_hour(self) -> list[Interval]:
        """Oldest first, without those in which nothing happened."""
        now = self._wall_clock()
        oldest = now - MAX_INTERVALS * INTERVAL_S
        # A clock that was set back leaves some in the future.
        return [each for each in self._intervals if oldest <= each.began_at <= now]

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def open(
        self, request_id: str, route: str, wire: str, *, user_agent: str = "", generates: bool
    ) -> RequestRecord:
        now = self._clock()
        record = RequestRecord(
            request_id,
            route,
            wire,
            user_agent,
            generates,
            began_at=now,
            clock=self._clock,
            on_token=self._note_token,
            phase_began_at=now,
            phase_s=dict.fromkeys(PHASES, 0.0),
        )
        self._open[request_id] = record
        return record

    def close(self, record: RequestRecord) -> None:
        """Tell of a request with an outcome; forget one that will be tried again."""
        now = self._clock()
        record.update_phase(now)
        record.total_s, record.ended_at = now - record.began_at, self._wall_clock()
        del self._open[record.id]
        if record.status is None and not record.is_client_gone:
            return
        if record.generates:
            self._recent.append(record)
        if record.first_token_s is not None:
            self._intervals[-1].first_token_s.append(record.first_token_s)
        for listener in self._listeners:
            listener.note_ended(record)

    def _note_token(self, gap_s: float | None) -> None:
        now, unix_s = self._clock(), int(self._wall_clock())
        began_at = unix_s - unix_s % INTERVAL_S
        if not self._intervals or self._intervals[-1].began_at != began_at:
            self._intervals.append(Interval(began_at))
        if gap_s is not None:
            self._intervals[-1].tokens += 1
            self._intervals[-1].busy_s += min(gap_s, now - self._last_token_at)
        self._last_token_at = now
        for listener in self._listeners:
            listener.note_token(gap_s)
