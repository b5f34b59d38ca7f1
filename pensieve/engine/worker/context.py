"""What build.py builds and the main loop in worker.py drives.

Its own file because tests build one without MLX.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pensieve.engine.generation import NOT_MEASURED, EngineStats, SpeculationState
from pensieve.engine.grammar.queue import GrammarQueue
from pensieve.engine.scheduling.pixel_desk import PixelDesk
from pensieve.engine.scheduling.scheduler import Scheduler


@dataclass(slots=True)
class WorkerContext:
    scheduler: Scheduler
    context_tokens: int
    grammar_queue: GrammarQueue
    read_stats: Callable[[], EngineStats]  # without rates
    # These return the seconds until their next call is due; None: nothing left to do.
    spill: Callable[[], float | None] = lambda: None  # queue one block of a prefix for the disk
    preload: Callable[[], float | None] = lambda: None  # read one block; called while idle
    relieve: Callable[[], float | None] = lambda: None  # release memory
    close: Callable[[], None] = lambda: None
    speculation: SpeculationState = NOT_MEASURED
    clock: Callable[[], float] = time.monotonic  # decides what happens when
    sees: bool = False  # pictures
    pixels: PixelDesk = field(default_factory=PixelDesk)
