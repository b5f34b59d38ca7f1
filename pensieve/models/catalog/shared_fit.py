"""Estimates the memory of one model over several machines before anything is loaded.

The front end's side of what the ranks agree on when they load (engine/planning/memory_plan.py,
`agreed`): the machine with the least room decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pensieve.engine.planning.attention_shape import ModelShape
from pensieve.engine.planning.memory_plan import FULL_BITS
from pensieve.engine.planning.mtp_files import config_of
from pensieve.engine.planning.sharding_table import obstacle, shape_of_rank
from pensieve.errors import ModelUnsupportedError
from pensieve.machine import Machine
from pensieve.models.catalog.memory_fit import (
    FitEstimate,
    MemoryLimit,
    estimate_fit,
    memory_limit_here,
)
from pensieve.models.folder.config_shape import shape_of
from pensieve.settings.resolve import Settings


@dataclass(frozen=True, slots=True)
class SharedFit:
    machines: tuple[FitEstimate, ...]  # in the order of ranks

    @property
    def context_tokens(self) -> int:
        """The context that every machine has room for; 0: the model does not fit."""
        return min(fit.context_tokens for fit in self.machines)

    @property
    def narrowest(self) -> int:
        """The rank whose machine has the least room."""
        return min(range(len(self.machines)), key=lambda rank: self.machines[rank].context_tokens)

    def describe(self) -> str:
        tokens = self.context_tokens
        rounded = tokens // 1000 * 1000 or tokens
        return f"about {rounded:,} tokens".replace(",", " ") if tokens else "no room for a prompt"


def shared_fit_of(folder: Path, limits: Sequence[MemoryLimit]) -> SharedFit:
    """Estimate for the model in `folder`. Raise ModelUnsupportedError if so many cannot share it,
    ModelDamagedError if its files do not tell.
    """
    config = config_of(folder)
    if reason := obstacle(config, len(limits)):
        raise ModelUnsupportedError(f"{folder.name}: {reason}.")
    return estimate_shared_fit(shape_of(folder), config, limits)


def share_on_mac(
    folder: Path, settings: Settings, machine: Machine, ranks: int
) -> FitEstimate | None:
    """Return how one of `ranks` equal parts fits this Mac's GPU; None if only the engine can
    determine it. Raises what `shared_fit_of` raises.
    """
    if machine.kind != "apple_silicon" or settings.device == "cpu":
        return None
    return shared_fit_of(folder, [memory_limit_here(machine, settings)] * ranks).machines[0]


def estimate_shared_fit(
    shape: ModelShape, config: Mapping[str, Any], limits: Sequence[MemoryLimit]
) -> SharedFit:
    """Estimate for machines with these limits, which the model has no obstacle to share."""
    part = shape_of_rank(shape, config, len(limits))
    fits = [estimate_fit(part, limit) for limit in limits]
    bits = [fit.precision.bits or FULL_BITS for fit in fits]
    agreed_limits = [
        limit if own == min(bits) else replace(limit, kv_bits=min(bits))
        for own, limit in zip(bits, limits, strict=True)
    ]
    return SharedFit(tuple(estimate_fit(part, limit) for limit in agreed_limits))
