"""The options that `start` and `restart` have in common: their names, what they take, and what help says of them."""

from typing import Annotated

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
Model = Annotated[
    str | None,
    Parameter(
        metavar="NAME",
        help="A model by name (phi-3-mini, smollm2-135m), a Hugging Face repository"
        " (owner/name), or the folder of an mlx-lm model.",
    ),
]
ComputeDevice = Annotated[
    Device | None,
    Parameter(
        metavar="gpu|cpu",
        help="Where MLX computes. A Mac with Apple silicon uses its GPU without being asked.",
    ),
]
