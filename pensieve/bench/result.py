"""The outcome of a run: figures with their samples, and what they were measured on; as JSON."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pensieve.untrusted_json import read_object

FORMAT = 1
MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    unit: str  # "s" or "tokens/s"
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def is_better_lower(self) -> bool:
        return self.unit == "s"


@dataclass(frozen=True, slots=True)
class Result:
    measured_at: str  # RFC 3339
    conditions: Mapping[str, str]  # model, machine, versions …
    figures: tuple[Figure, ...]
    left_out: tuple[str, ...] = ()  # what, and why
    warnings: tuple[str, ...] = ()  # what makes figures doubtful

    def as_json(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "measured_at": self.measured_at,
            "conditions": dict(self.conditions),
            "figures": [
                {
                    "name": each.name,
                    "unit": each.unit,
                    "median": _rounded(each.median),
                    "samples": [_rounded(sample) for sample in each.samples],
                }
                for each in self.figures
            ],
            "left_out": list(self.left_out),
            "warnings": list(self.warnings),
        }

    def dumps(self) -> str:
        return json.dumps(self.as_json(), indent=2, ensure_ascii=False)


def loads(text: str | bytes) -> Result:
    """Parse a saved run. Raises ValueError."""
    saved = cast("dict[str, Any]", read_object(text, max_bytes=MAX_BYTES))
    if saved.get("format") != FORMAT:
        raise ValueError("not a saved run of this version")
    try:
        return Result(
            str(saved["measured_at"]),
            {str(name): str(value) for name, value in saved["conditions"].items()},
            tuple(_figure(each) for each in saved["figures"]),
            tuple(map(str, saved["left_out"])),
            tuple(map(str, saved["warnings"])),
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"a field is missing or wrong: {error}") from error


def _figure(saved: Mapping[str, Any]) -> Figure:
    samples = tuple(float(sample) for sample in saved["samples"])
    if not samples or not all(0 < sample < 1e9 for sample in samples):
        raise ValueError("a figure without usable samples")
    return Figure(str(saved["name"]), str(saved["unit"]), samples)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
