"""The options that `start` and `restart` have in common: their names, what they take, and what help says of them."""

from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from pensieve.settings import Device

Port = Annotated[
    int | None,
    Parameter(
        validator=Number(gte=1, lte=65535),
        metavar="N",
        help="Port to listen on, 7777 where nothing says otherwise.",
    ),
]
Host = Annotated[
    str | None,
    Parameter(
        metavar="ADDRESS",
        help="Address to listen on, 127.0.0.1 where nothing says otherwise. One that other"
        " machines can reach needs a key of your own in PENSIEVE_API_KEY.",
    ),
]
# Shells complete the two words; any other text is taken too.
Model = Annotated[
    Literal["auto", "auto:fast"] | str | None,
    Parameter(
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
        validator=Number(gte=0),
        metavar="MINUTES",
        help="Give the model's memory back after so long without work, 30 where nothing says"
        " otherwise, 0 never. The next request loads it again.",
    ),
]
ComputeDevice = Annotated[
    Device | None,
    Parameter(
        metavar="gpu|cpu",
        help="Where MLX computes. A Mac with Apple silicon uses its GPU without being asked.",
    ),
]
