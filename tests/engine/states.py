"""Waits for an engine to change state: it logs with every change, and each log line is a check."""

import logging
from collections.abc import Callable

import anyio

from pensieve.engine.generation import Engine


class _LogWaiter(logging.Handler):
    """Sets `event` on every log line. The front end logs on the event loop's thread."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.event = anyio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.event.set()


async def in_state(engine: Engine, state: str, timeout_s: float = 30) -> None:
    """Raises `TimeoutError`."""
    await until(lambda: engine.health.state == state, timeout_s)


async def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait for a condition that changes with a line of the engine's log. Raises `TimeoutError`."""
    log = logging.getLogger("pensieve.engine")
    waiter, level = _LogWaiter(), log.level
    log.addHandler(waiter)
    log.setLevel(logging.INFO)
    try:
        with anyio.fail_after(timeout_s):
            while not condition():
                waiter.event = anyio.Event()
                await waiter.event.wait()
    finally:
        log.setLevel(level)
        log.removeHandler(waiter)
