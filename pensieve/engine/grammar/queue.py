"""Generations whose grammar is being compiled: they join the scheduler's line when it is there. Knows no llguidance, no MLX.

Crossing: whoever completes a future rings the bell, on which the worker's main thread waits beside the front end's socket.
"""

import socket
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pensieve.engine.generation import Generation, Grammar
from pensieve.engine.protocol import Failed
from pensieve.errors import EngineBusyError, EngineError, GrammarError

MAX_WAITING = 64


@dataclass(frozen=True, slots=True)
class _PendingGrammar:
    generation: Generation
    compiled: Future[Any]


class GrammarQueue:
    """Owned by the worker's loop. `bell` becomes readable when somebody may leave."""

    def __init__(self, prepare: Callable[[Grammar], Future[Any]]) -> None:
        self._prepare = prepare
        self._guests: dict[int, _PendingGrammar] = {}
        self._has_rung = False
        self.bell, self._ring = socket.socketpair()
        self.bell.settimeout(0)
        self._ring.settimeout(0)

    def add(self, key: int, generation: Generation) -> Failed | None:
        """Wait for the generation's grammar; `Failed` where too many do."""
        assert generation.grammar is not None
        if len(self._guests) >= MAX_WAITING:
            return Failed("Overloaded: too many grammars are waiting.", "busy")
        compiled = self._prepare(generation.grammar)
        self._guests[key] = _PendingGrammar(generation, compiled)
        compiled.add_done_callback(self._ring_bell)
        return None

    def cancel(self, key: int) -> None:
        """Forget one, if it is here; its grammar is compiled for the next."""
        self._guests.pop(key, None)

    def take_ready(self) -> list[tuple[int, Generation | Failed]]:
        """Who has a grammar now, in order of arrival, and who will not get one."""
        if not self._has_rung:
            return []
        self._has_rung = False
        with suppress(BlockingIOError):
            self.bell.recv(4096)
        ready = [key for key, guest in self._guests.items() if guest.compiled.done()]
        return [(key, _outcome(self._guests.pop(key))) for key in ready]

    def close(self) -> None:
        """Nobody listens any more."""
        self.bell.close()
        self._ring.close()

    def _ring_bell(self, _: Future[Any]) -> None:
        # Full is rung; closed has nobody to hear it.
        with suppress(OSError):
            self._ring.send(b"\0")
        # Only now: whoever sees this finds the bell rung, and silences it.
        self._has_rung = True


def _outcome(guest: _PendingGrammar) -> Generation | Failed:
    error = guest.compiled.exception()
    match error:
        case None:
            return guest.generation
        case EngineBusyError():
            return Failed(error.message, "busy")
        case GrammarError():
            return Failed(error.message, "grammar")
        case EngineError():
            return Failed(error.message, "engine")
        case _:
            return Failed(f"The grammar could not be compiled: {error}", "engine")
