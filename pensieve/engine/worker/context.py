"""What the worker's main loop works with: built by build.py, used by worker.py."""

from collections.abc import Callable
from dataclasses import dataclass

from pensieve.engine.generation import EngineStats
from pensieve.engine.grammar.queue import GrammarQueue
from pensieve.engine.scheduling.scheduler import Scheduler


@dataclass(slots=True)
class WorkerContext:
    """What the worker alternates between.

    `spill` has a block of a prefix written, and returns the seconds until it wants to go on;
    `relieve` gives memory back, and returns the same; `figures` tells what is used now, given the
    tokens per second.
    """

    scheduler: Scheduler
    context_tokens: int
    anteroom: GrammarQueue
    figures: Callable[[float], EngineStats]
    spill: Callable[[], float | None] = lambda: None
    relieve: Callable[[], float | None] = lambda: None
    close: Callable[[], None] = lambda: None
