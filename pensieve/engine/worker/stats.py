"""What the worker sends besides answering: events as they come, figures about once a second. No socket and no MLX."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pensieve.engine.generation import EngineStats, Token
from pensieve.engine.protocol import Frame, Step
from pensieve.engine.scheduling.scheduler import KeyedEvent

# At most so often are figures sent while there is work.
REPORT_S = 1.0
# Tokens so far apart are of different bursts: between them nobody waited, or a long prompt was processed.
_BURST_S = 5.0


@dataclass(slots=True)
class Throughput:
    """Tokens per second of all answers together, when some were last made. Others tell the time."""

    _began_s: float = 0.0
    _last_s: float = -_BURST_S
    _tokens: int = 0
    _rate: float = 0.0

    def note(self, tokens: int, now_s: float) -> None:
        """So many more, at this time; a burst's first ones only begin it."""
        if now_s - self._last_s >= _BURST_S:
            self._began_s, self._tokens = now_s, 0
        else:
            self._tokens += tokens
        self._last_s = now_s

    def read(self) -> float:
        """Since the last reading, where any came since."""
        if self._last_s > self._began_s:
            self._rate = self._tokens / (self._last_s - self._began_s)
            self._began_s, self._tokens = self._last_s, 0
        return self._rate


class Reporter:
    """Owned by the worker's loop. figures: what is used now, given the tokens per second."""

    def __init__(
        self,
        send: Callable[[Frame], None],
        figures: Callable[[float], EngineStats],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._figures = figures
        self._clock = clock
        self._speed = Throughput()
        self._sent: EngineStats | None = None
        self._looked_s = clock()

    def events(self, events: list[KeyedEvent]) -> None:
        """Send these, if any."""
        if not events:
            return
        self._send(Step(tuple(events)))
        if tokens := sum(isinstance(event, Token) for _, event in events):
            self._speed.note(tokens, self._clock())

    def figures(self, *, is_last: bool) -> None:
        """Send figures if they changed and it is time. is_last: nothing changes any more until somebody asks."""
        now_s = self._clock()
        if not is_last and now_s - self._looked_s < REPORT_S:
            return
        self._looked_s = now_s
        figures = self._figures(round(self._speed.read(), 1))
        if figures != self._sent:
            self._send(figures)
            self._sent = figures
