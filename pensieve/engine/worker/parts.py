# pyright: basic
"""What ranks of one model replace in a worker's engine (engine/ranks/)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pensieve.engine.grammar.queue import GrammarQueue, Prepare
from pensieve.engine.long_operations import Announce
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.model.loading import load_weights
from pensieve.engine.planning.memory_plan import Least
from pensieve.engine.scheduling.disk_tier import DiskTier
from pensieve.engine.worker.memory_pressure import ReadPressure
from pensieve.settings.resolve import Device


@dataclass(frozen=True, slots=True)
class ModelShare:
    """Which part of a model this worker holds."""

    rank: int = 0
    ranks: int = 1
    backend: str = ""  # through which the ranks compute together


WHOLE = ModelShare()


@dataclass(frozen=True, slots=True)
class EngineParts:
    share: ModelShare = WHOLE
    load_weights: Callable[[Path, Device, Announce], Any] = load_weights
    least: Least = lambda _, value: value
    # Decides how much is tried and measured, so all ranks must read the same time.
    clock: Callable[[], float] = time.monotonic
    backend: Callable[..., BatchBackend] = BatchBackend
    disk_tier: Callable[[DiskTier], DiskTier] = lambda tier: tier
    grammar_queue: Callable[[Prepare], GrammarQueue] = GrammarQueue
    read_pressure: Callable[[ReadPressure | None], ReadPressure | None] = lambda read: read


ALONE = EngineParts()
