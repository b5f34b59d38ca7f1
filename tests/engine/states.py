"""Waiting for an engine to load, to be ready, to have failed: it logs something with every such change, and is looked at then."""

import logging
from collections.abc import Callable

import anyio

from pensieve.engine.generation import Engine


class _Heard(logging.Handler):
    """Sets `event`, on the event loop's thread, on which the front end logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.event = anyio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.event.set()


async def in_state(engine: Engine, state: str, most_s: float = 30) -> None:
    """Once it is. Raises `TimeoutError` after so many seconds."""
    await until(lambda: engine.health.state == state, most_s)


async def until(condition: Callable[[], bool], most_s: float = 30) -> None:
    """Wait for what comes with a line of the engine's log. Raises `TimeoutError`."""
    log = logging.getLogger("pensieve.engine")
    heard, level = _Heard(), log.level
    log.addHandler(heard)
    log.setLevel(logging.INFO)
    try:
        with anyio.fail_after(most_s):
            while not condition():
                heard.event = anyio.Event()
                await heard.event.wait()
    finally:
        log.setLevel(level)
        log.removeHandler(heard)
