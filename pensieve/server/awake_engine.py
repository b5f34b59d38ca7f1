"""An engine that keeps the machine awake during generations and for a moment after the last one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager

from pensieve.engine.generation import Engine, EngineEvent, EngineHealth, Generation
from pensieve.sleep_blocker import SleepBlocker

# A client that works with tools sends its next request within seconds.
LINGER_S = 30.0


class AwakeEngine:
    """Implements `Engine` by delegating to another one. Used on the event loop alone."""

    def __init__(self, engine: Engine, blocker: SleepBlocker, linger_s: float = LINGER_S) -> None:
        self._engine = engine
        self._blocker = blocker
        self._linger_s = linger_s
        self._running = 0
        self._release: asyncio.TimerHandle | None = None

    @property
    def health(self) -> EngineHealth:
        return self._engine.health

    def expect(self) -> AbstractContextManager[None]:
        return self._engine.expect()

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncGenerator[AsyncIterator[EngineEvent]]:
        self._begin()
        try:
            async with self._engine.generate(generation) as events:
                yield events
        finally:
            self._end()

    def _begin(self) -> None:
        self._running += 1
        if self._release:
            self._release.cancel()
        self._blocker.hold()

    def _end(self) -> None:
        self._running -= 1
        if not self._running:
            loop = asyncio.get_running_loop()
            self._release = loop.call_later(self._linger_s, self._blocker.release)
