"""How a model is sampled where a request does not say, and where each value comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, TypedDict

Origin = Literal["setting", "generation_config.json", "default"]


class FieldReport(TypedDict):
    """One field, as JSON has it."""

    value: float
    origin: Origin


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """The fields of `engine.generation.Sampling` with neutral values. origins: of the set ones."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    origins: Mapping[str, Origin] = field(default_factory=dict[str, Origin], compare=False)

    def updated(self, values: Mapping[str, float], origin: Origin) -> "SamplingDefaults":
        """These defaults with `values`, by the names of the fields, which come from `origin`."""
        return replace(self, **values, origins={**self.origins, **dict.fromkeys(values, origin)})

    def report(self) -> dict[str, FieldReport]:
        """Every field by its name."""
        names = [each.name for each in fields(self) if each.name != "origins"]
        return {
            name: {"value": getattr(self, name), "origin": self.origins.get(name, "default")}
            for name in names
        }

    def __str__(self) -> str:
        """The temperature, and what else is not at its default."""
        return ", ".join(
            f"{name} {field['value']:g} ({field['origin']})"
            for name, field in self.report().items()
            if name == "temperature" or field["origin"] != "default"
        )


# What holds where nothing is said: the model's distribution as it is.
NEUTRAL = SamplingDefaults()
