"""Requests whose grammar is being compiled; they join the scheduler's queue when it is ready.

Owned by the worker's main loop. Compiler threads write one byte to `wakeup`; the main loop polls it
next to the front end's socket. Knows no llguidance and no MLX.
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
Prepare = Callable[[Grammar], Future[Any]]


@dataclass(frozen=True, slots=True)
class _PendingGrammar:
    generation: Generation
    compiled: Future[Any]


class GrammarQueue:
    """`wakeup` becomes readable when a request is ready or failed."""

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare
        self._pending: dict[int, _PendingGrammar] = {}
        self._is_signaled = False
        self.wakeup, self._wakeup_sender = socket.socketpair()
        self.wakeup.settimeout(0)
        self._wakeup_sender.settimeout(0)

    def add(self, key: int, generation: Generation) -> Failed | None:
        """Wait for the request's grammar. Returns `Failed` if too many are waiting."""
        assert generation.grammar is not None
        if len(self._pending) >= MAX_WAITING:
            return Failed("Overloaded: too many grammars are waiting.", "busy")
        compiled = self._prepare(generation.grammar)
        self._pending[key] = _PendingGrammar(generation, compiled)
        compiled.add_done_callback(self._signal)
        return None

    def __len__(self) -> int:
        return len(self._pending)

    def cancel(self, key: int) -> None:
        """Remove a request if it is here; its grammar is compiled for later ones."""
        self._pending.pop(key, None)

    def take_ready(self) -> list[tuple[int, Generation | Failed]]:
        """Remove and return the requests with a compiled or failed grammar, in order of arrival."""
        if not self._is_signaled:
            return []
        self._is_signaled = False
        with suppress(BlockingIOError):
            self.wakeup.recv(4096)
        ready = [key for key, pending in self._pending.items() if pending.compiled.done()]
        return [(key, _outcome(self._pending.pop(key))) for key in ready]

    def close(self) -> None:
        self.wakeup.close()
        self._wakeup_sender.close()

    def _signal(self, _: Future[Any]) -> None:
        # A full buffer already wakes the loop; a closed socket means shutdown.
        with suppress(OSError):
            self._wakeup_sender.send(b"\0")
        # Set last: when `take_ready` sees this, the byte is in the buffer and is drained.
        self._is_signaled = True


def _outcome(pending: _PendingGrammar) -> Generation | Failed:
    error = pending.compiled.exception()
    match error:
        case None:
            return pending.generation
        case EngineBusyError():
            return Failed(error.message, "busy")
        case GrammarError():
            return Failed(error.message, "grammar")
        case EngineError():
            return Failed(error.message, "engine")
        case _:
            return Failed(f"The grammar could not be compiled: {error}", "engine")
