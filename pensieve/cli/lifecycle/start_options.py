"""Options shared by `start` and `restart`, with their help, and the check of allowed values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from pensieve.settings.resolve import Device, KeyRequirement, LogFormat, SpeculationMode
from pensieve.settings.spec import KEYS


@dataclass(frozen=True, slots=True)
class Allowed:
    """The allowed values of an option, as a sentence and as a check that the parser calls."""

    values: str  # with an example
    accepts: Callable[[Any], bool]

    def __call__(self, kind: object, value: Any) -> None:
        if value is not None and not self.accepts(value):
            raise ValueError(str(self))

    def __str__(self) -> str:
        return f"It can be {self.values}."


def whole_number(_kind: object, tokens: Sequence[Token]) -> int:
    """Parse an integer. By default "1.5" would be 2."""
    (token,) = tokens
    return int(token.value)


def allowed_by_setting(name: str) -> Allowed:
    return Allowed(KEYS[name].allowed, KEYS[name].accepts)


Port = Annotated[
    int | None,
    Parameter(
        converter=whole_number,
        validator=allowed_by_setting("port"),
        metavar="N",
        help="Listen on this port; the default is 7777.",
    ),
]
Host = Annotated[
    str | None,
    Parameter(
        validator=allowed_by_setting("host"),
        metavar="ADDRESS",
        help="Listen on this address; the default is 127.0.0.1. An address that other"
        " machines can reach requires your own key in PENSIEVE_API_KEY.",
    ),
]
# Shells complete the two literals; any other text is accepted too.
Model = Annotated[
    Literal["auto", "auto:fast"] | str | None,
    Parameter(
        validator=allowed_by_setting("model"),
        metavar="NAME",
        show_choices=False,
        help="Serve this model: a name (phi-3-mini, smollm2-135m), a Hugging Face repository"
        " (owner/name), the folder of an mlx-lm model; or auto, the best agent for this"
        " machine, or auto:fast, the best fast one.",
    ),
]
IdleUnload = Annotated[
    float | None,
    Parameter(
        validator=allowed_by_setting("idle_unload"),
        metavar="MINUTES",
        help="Unload the model after this many idle minutes; the default is 30, 0 is never."
        " The next request loads it again.",
    ),
]
ComputeDevice = Annotated[
    Device | None,
    Parameter(
        validator=allowed_by_setting("device"),
        metavar="gpu|cpu",
        help="Compute on this device. The default on Apple silicon is the GPU.",
    ),
]
Speculation = Annotated[
    SpeculationMode | None,
    Parameter(
        validator=allowed_by_setting("speculation"),
        metavar="auto|off",
        help="Verify several likely tokens per step: auto, the default, where that is faster on"
        " this machine, or off. It changes the speed, not the answers.",
    ),
]
RequireKey = Annotated[
    KeyRequirement | None,
    Parameter(
        validator=allowed_by_setting("require_key"),
        metavar="WHEN",
        help="Require the API key: auto, the default, lets programs on this machine in without"
        " one while it is the public default key; on; or off, on this machine alone.",
    ),
]
LogFormatOption = Annotated[
    LogFormat | None,
    Parameter(
        name="--log-format",
        validator=allowed_by_setting("log_format"),
        metavar="text|json",
        help="Write the log as text, the default, or as one JSON object per line.",
    ),
]
ShowContent = Annotated[
    bool | None,
    Parameter(
        help="Keep the texts of the last requests in memory and show them, shortened, to clients"
        " with the key at /activity/history. Off by default.",
    ),
]
Hosts = Annotated[
    str | None,
    Parameter(
        validator=allowed_by_setting("hosts"),
        metavar="NAMES",
        help="Run the model on this machine, reached by ssh, instead of here. It needs pensieve"
        " and the model: pensieve hosts check. Several, with commas between, need --replicas;"
        " localhost is this machine.",
    ),
]
Replicas = Annotated[
    bool | None, Parameter(help="Run the whole model on each of several hosts, for a team.")
]
HostfileOption = Annotated[
    str | None,
    Parameter(
        name="--hostfile",
        validator=allowed_by_setting("hostfile"),
        metavar="FILE",
        help="Run one model over the machines in this file, of which this one is the first:"
        " for a model that fits none of them. mlx.distributed_config writes it.",
    ),
]
Workers = Annotated[
    int | None,
    Parameter(
        converter=whole_number,
        validator=allowed_by_setting("workers"),
        metavar="N",
        help="Run this many engines with the whole model on this machine; they share its memory."
        " The default is 1.",
    ),
]
