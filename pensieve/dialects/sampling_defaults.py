"""Define a model's sampling where a request does not, and the origin of each value."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, TypedDict

Origin = Literal["setting", "generation_config.json", "default"]


class FieldReport(TypedDict):
    """One field, in JSON form."""

    value: float
    origin: Origin


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """The fields of `engine.generation.Sampling` with neutral defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    # Of the fields that are set.
    origins: Mapping[str, Origin] = field(default_factory=dict[str, Origin], compare=False)

    def updated(self, values: Mapping[str, float], origin: Origin) -> "SamplingDefaults":
        """Return these defaults with `values`, by field name, which come from `origin`."""
        return replace(self, **values, origins={**self.origins, **dict.fromkeys(values, origin)})

    def report(self) -> dict[str, FieldReport]:
        names = [item.name for item in fields(self) if item.name != "origins"]
        return {
            name: {"value": getattr(self, name), "origin": self.origins.get(name, "default")}
            for name in names
        }

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {field['value']:g} ({field['origin']})"
            for name, field in self.report().items()
            if name == "temperature" or field["origin"] != "default"
        )


# The model's unmodified distribution.
NEUTRAL = SamplingDefaults()
