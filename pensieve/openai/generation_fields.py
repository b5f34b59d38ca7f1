"""Fields that the requests of several endpoints have: limits, sampling and streams."""

import logging
from collections.abc import Mapping
from typing import Annotated, cast

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, StrictBool, StrictInt
from pydantic_core import PydanticCustomError

from pensieve.api.base import RequestModel
from pensieve.api.messages.request import MAX_INT, MAX_STOP_CHARS, MAX_STOP_SEQUENCES
from pensieve.errors import InvalidRequestError

_log = logging.getLogger("pensieve.openai")


class StreamOptions(RequestModel):
    """Options of a stream."""

    include_usage: StrictBool = False


def _unlimited(tokens: int) -> int | None:
    if tokens == 0:
        raise PydanticCustomError(
            "no_tokens", "Input should be greater than or equal to 1, or -1 for no limit"
        )
    return None if tokens < 0 else tokens


def _stop_list(stop: object) -> object:
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list):
        return texts
    return [text for text in cast("list[object]", texts) if text != ""]


# -1 means no limit to llama.cpp and LM Studio.
TokenLimit = Annotated[StrictInt, Field(ge=-1, le=MAX_INT), AfterValidator(_unlimited)] | None
Number = Annotated[float, Field(strict=True)]
StopText = Annotated[str, Field(max_length=MAX_STOP_CHARS)]


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
    seed: Annotated[StrictInt, Field(ge=-MAX_INT - 1, le=MAX_INT)] | None = None
    # Without effect so far, but for a line in the log.
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0
    # Refused unless they ask for nothing.
    n: StrictInt = 1
    logit_bias: dict[str, JsonValue] = {}  # noqa: RUF012 -- pydantic copies it

    def check(self, refused: Mapping[str, bool]) -> None:
        """Raise `InvalidRequestError` for what cannot be honoured; log what is ignored.

        refused: the endpoint's own fields, and whether their values are such.
        """
        common = {"n": self.n != 1, "logit_bias": bool(self.logit_bias)}
        for field, is_refused in {**common, **refused}.items():
            if is_refused:
                raise InvalidRequestError(f"{field}: This server does not support it")
        penalties = (self.frequency_penalty, self.presence_penalty)
        if any(penalties):
            _log.info("ignoring a request's frequency and presence penalties: %s, %s", *penalties)
