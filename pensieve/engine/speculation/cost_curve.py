"""What a decode step of several rows takes on this device, as measured at load.

A row is one token of one sequence. engine/model measures and stores the curve; policy.py reads it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class ContextCosts:
    """Steps after one length of context."""

    context_tokens: int  # in the KV cache
    seconds: Mapping[int, float]  # of a step, by its rows; has 1 row

    def __post_init__(self) -> None:
        if self.context_tokens < 0 or 1 not in self.seconds or min(self.seconds) < 1:
            raise ValueError("step times need a context and those of 1 row")
        if not all(math.isfinite(time) and time > 0 for time in self.seconds.values()):
            raise ValueError("step times must be positive")

    def bounds(self, rows: int) -> tuple[float, float] | None:
        """Return the lowest and the highest time that `rows` may take; None beyond the measured.

        Costs are a staircase: between two measured widths, rows take the time of either.
        """
        if rows in self.seconds:
            return self.seconds[rows], self.seconds[rows]
        above = min((width for width in self.seconds if width > rows), default=None)
        if above is None or rows < 1:
            return None
        below = max(width for width in self.seconds if width < rows)
        low, high = sorted((self.seconds[below], self.seconds[above]))
        return low, high


@dataclass(frozen=True, slots=True)
class CostCurve:
    contexts: tuple[ContextCosts, ...]  # ascending; a context may lack widths that were too slow
    # Only measured widths are warm: where each width is compiled by itself (CUDA).
    has_exact_widths: bool = False

    def __post_init__(self) -> None:
        lengths = [costs.context_tokens for costs in self.contexts]
        if not lengths or lengths != sorted(set(lengths)):
            raise ValueError("a cost curve needs ascending contexts")

    def context_class(self, context_tokens: int) -> int:
        """Return the index of the measured context whose length is nearest by ratio."""
        lengths = [costs.context_tokens for costs in self.contexts]
        return min(
            range(len(lengths)),
            key=lambda at: abs(math.log((lengths[at] + 1) / (context_tokens + 1))),
        )

    def is_usable(self, rows: int, context_class: int) -> bool:
        """Return whether steps of `rows` are warm and their time is known."""
        costs = self.contexts[context_class]
        if self.has_exact_widths:
            return rows in costs.seconds
        return costs.bounds(rows) is not None

    def usable_rows(self, context_class: int) -> list[int]:
        largest = max(self.contexts[context_class].seconds)
        return [rows for rows in range(1, largest + 1) if self.is_usable(rows, context_class)]

    def ratio(self, rows: int, plain_rows: int, context_class: int) -> float:
        """Return the time of a step of `rows`, relative to one of `plain_rows`, at most.

        Both must be within the measured widths.
        """
        costs = self.contexts[context_class]
        wide, plain = costs.bounds(rows), costs.bounds(plain_rows)
        if wide is None or plain is None:
            raise ValueError(f"a step of {rows} or {plain_rows} rows was not measured")
        return 1.0 if rows == plain_rows else wide[1] / plain[0]


@dataclass(frozen=True, slots=True)
class CurveKey:
    """What a measured curve holds for."""

    model: str  # fingerprint of the weights
    device: str
    version: str  # of MLX and of the code that measures
    kv_bits: int  # 16 is full precision


def cache_record(key: CurveKey, curve: CostCurve) -> dict[str, object]:
    """Return a JSON value."""
    contexts = [[costs.context_tokens, sorted(costs.seconds.items())] for costs in curve.contexts]
    return {"key": asdict(key), "has_exact_widths": curve.has_exact_widths, "contexts": contexts}


def cached_curve(record: object, key: CurveKey) -> CostCurve | None:
    """Return a record's curve; None for another key or a damaged record: it is measured again."""
    try:
        fields = cast("dict[str, Any]", record)
        if fields["key"] != asdict(key):
            return None
        contexts = tuple(_context_costs(*context) for context in fields["contexts"])
        return CostCurve(contexts, fields["has_exact_widths"] is True)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _context_costs(context_tokens: object, seconds: list[tuple[object, object]]) -> ContextCosts:
    times = {_int(rows): float(cast("float", time)) for rows, time in seconds}
    return ContextCosts(_int(context_tokens), times)


def _int(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"not an integer: {value!r}")
    return value
