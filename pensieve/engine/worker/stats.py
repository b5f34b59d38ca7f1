"""Sends events as they come and `EngineStats` about once a second. No socket and no MLX."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pensieve.engine.generation import EngineStats, Token
from pensieve.engine.protocol import Frame, Step
from pensieve.engine.scheduling.scheduler import KeyedEvent

# Between two `EngineStats` while there is work.
REPORT_S = 1.0
# Tokens further apart belong to different bursts: in between the engine was idle, or processed a
# long prompt.
_BURST_S = 5.0


@dataclass(slots=True)
class Throughput:
    """Tokens per second of all answers together, over the latest burst. Callers pass the time."""

    _began_s: float = 0.0
    _last_s: float = -_BURST_S
    _tokens: int = 0
    _rate: float = 0.0

    def note(self, tokens: int, now_s: float) -> None:
        """Count tokens sampled by now. The first ones of a burst only start its clock."""
        if now_s - self._last_s >= _BURST_S:
            self._began_s, self._tokens = now_s, 0
        else:
            self._tokens += tokens
        self._last_s = now_s

    def read(self) -> float:
        """Return the rate since the last call, or the previous one if no tokens came since."""
        if self._last_s > self._began_s:
            self._rate = self._tokens / (self._last_s - self._began_s)
            self._began_s, self._tokens = self._last_s, 0
        return self._rate


class Reporter:
    """Owned by the worker's loop."""

    def __init__(
        self,
        send: Callable[[Frame], None],
        read_stats: Callable[[float], EngineStats],  # of tokens per second
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._read_stats = read_stats
        self._clock = clock
        self._throughput = Throughput()
        self._sent: EngineStats | None = None
        self._last_report_s = clock()

    def send_events(self, events: list[KeyedEvent]) -> None:
        if not events:
            return
        self._send(Step(tuple(events)))
        if tokens := sum(isinstance(event, Token) for _, event in events):
            self._throughput.note(tokens, self._clock())

    def send_stats(self, *, is_last: bool) -> None:
        """Send stats if changed and due. is_last: nothing changes until the next request."""
        now_s = self._clock()
        if not is_last and now_s - self._last_report_s < REPORT_S:
            return
        self._last_report_s = now_s
        stats = self._read_stats(round(self._throughput.read(), 1))
        if stats != self._sent:
            self._send(stats)
            self._sent = stats
