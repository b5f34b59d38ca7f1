"""Fields that the requests of several endpoints have: limits, sampling and streams."""

import re
from collections.abc import Mapping
from typing import Annotated, cast

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, WithJsonSchema
from pydantic_core import PydanticCustomError

from pensieve.api.base import RequestModel
from pensieve.api.messages.request import MAX_INT, MAX_STOP_CHARS, MAX_STOP_SEQUENCES
from pensieve.errors import InvalidRequestError

MAX_CHOICES = 8
MAX_TOP_LOGPROBS = 20
MAX_BIASES = 10_000
_TOKEN_ID = re.compile("^[0-9]{1,9}$")


class StreamOptions(RequestModel):
    """Options of a stream."""

    include_usage: StrictBool = False


def _unlimited(tokens: int) -> int | None:
    if tokens == 0:
        raise PydanticCustomError(
            "no_tokens", "Input should be greater than or equal to 1, or -1 for no limit"
        )
    return None if tokens < 0 else tokens


def text_or_list(value: object) -> object:
    """Return `value` if it is one of them; an error that names the list alone misleads."""
    if isinstance(value, str | list | tuple):
        return cast("object", value)
    raise PydanticCustomError("text_or_list", "Input should be a valid string or list")


def _folded(seed: int) -> int:
    """Return the 64-bit number with the same last bits: the seed itself if it has 64."""
    return (seed + MAX_INT + 1) % 2**64 - MAX_INT - 1


def _stop_list(stop: object) -> object:
    texts = [stop] if isinstance(stop, str) else text_or_list(stop)
    return [text for text in cast("list[object]", texts) if text != ""]


def _check_token_ids(biases: dict[str, float]) -> dict[str, float]:
    if not all(map(_TOKEN_ID.fullmatch, biases)):
        raise PydanticCustomError("token_ids", "Keys should be token ids")
    return biases


# -1 means no limit to llama.cpp and LM Studio.
TokenLimit = Annotated[StrictInt, Field(ge=-1, le=MAX_INT), AfterValidator(_unlimited)] | None
Number = Annotated[float, Field(strict=True)]
StopText = Annotated[str, Field(max_length=MAX_STOP_CHARS)]

# By token id, which JSON has as text.
LogitBias = Annotated[
    dict[str, Annotated[Number, Field(ge=-100, le=100)]],
    Field(max_length=MAX_BIASES),
    AfterValidator(_check_token_ids),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAX_BIASES,
            "propertyNames": {"pattern": _TOKEN_ID.pattern},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        }
    ),
]


class GenerationFields(RequestModel):
    """How to generate an answer, and how to send it."""

    model: Annotated[str, Field(min_length=1)] = "local"
    stream: StrictBool = False
    stream_options: StreamOptions = StreamOptions()
    stop: Annotated[
        tuple[StopText, ...],
        Field(max_length=MAX_STOP_SEQUENCES),
        BeforeValidator(_stop_list, json_schema_input_type=str | tuple[StopText, ...]),
    ] = ()
    # None: from the settings or the model.
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    top_k: Annotated[StrictInt, Field(ge=-1, le=MAX_INT)] | None = None  # -1 is off
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=2)] | None = None
    seed: Annotated[StrictInt, AfterValidator(_folded)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0
    logit_bias: LogitBias = {}  # noqa: RUF012 -- pydantic copies it
    n: Annotated[StrictInt, Field(ge=1, le=MAX_CHOICES)] = 1


def check_supported(refused: Mapping[str, bool]) -> None:
    """Raise `InvalidRequestError` for what cannot be honoured.

    refused: fields, and whether their values are such.
    """
    for field, is_refused in refused.items():
        if is_refused:
            raise InvalidRequestError(f"{field}: This server does not support it")
