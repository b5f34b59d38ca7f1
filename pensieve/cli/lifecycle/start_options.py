"""The options that `start` and `restart` have in common: their names, what they take, and what help says of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from pensieve.settings.resolve import Device
from pensieve.settings.spec import KEYS


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the value of an option can be, in words and as a check; the parser calls it."""

    values: str  # with an example
    accepts: Callable[[Any], bool]

    def __call__(self, kind: object, value: Any) -> None:
        if value is not None and not self.accepts(value):
            raise ValueError(str(self))

    def __str__(self) -> str:
        return f"It can be {self.values}."


def allowed_by_setting(name: str) -> Allowed:
    """Return what the setting of this name can be."""
    return Allowed(KEYS[name].allowed, KEYS[name].accepts)


Port = Annotated[
    int | None,
    Parameter(
        validator=allowed_by_setting("port"),
        metavar="N",
        help="Port to listen on, 7777 where nothing says otherwise.",
    ),
]
Host = Annotated[
    str | None,
    Parameter(
        validator=allowed_by_setting("host"),
        metavar="ADDRESS",
        help="Address to listen on, 127.0.0.1 where nothing says otherwise. One that other"
        " machines can reach needs a key of your own in PENSIEVE_API_KEY.",
    ),
]
# Shells complete the two words; any other text is taken too.
Model = Annotated[
    Literal["auto", "auto:fast"] | str | None,
    Parameter(
        validator=allowed_by_setting("model"),
        metavar="NAME",
        show_choices=False,
        help="A model by name (phi-3-mini, smollm2-135m), a Hugging Face repository"
        " (owner/name), the folder of an mlx-lm model; or auto, the best agent that suits"
        " this machine, or auto:fast, the best of those that answer quickly.",
    ),
]
IdleUnload = Annotated[
    float | None,
    Parameter(
        validator=allowed_by_setting("idle_unload"),
        metavar="MINUTES",
        help="Give the model's memory back after so long without work, 30 where nothing says"
        " otherwise, 0 never. The next request loads it again.",
    ),
]
ComputeDevice = Annotated[
    Device | None,
    Parameter(
        validator=allowed_by_setting("device"),
        metavar="gpu|cpu",
        help="Where MLX computes. A Mac with Apple silicon uses its GPU without being asked.",
    ),
]
