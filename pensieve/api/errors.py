"""Anthropic's wording of errors: the envelope, and pydantic's findings as dotted paths. It knows no HTTP status."""

from typing import Literal

from pydantic import Field, ValidationError

from pensieve.api.base import ApiModel, is_none

ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "timeout_error",
    "api_error",
    "overloaded_error",
]

# Where pydantic names Python's types, Anthropic names JSON's.
_WORDS = {
    "tuple_type": "Input should be a valid list",
    "model_type": "Input should be an object",
    "model_attributes_type": "Input should be an object",
}


class ErrorDetails(ApiModel):
    """The machine's word for a case that clients have a way round for."""

    error_code: str


class ErrorBody(ApiModel):
    """What went wrong. Claude Code takes an error with other keys for another vendor's."""

    type: ErrorType
    message: str
    details: ErrorDetails | None = Field(default=None, exclude_if=is_none)


class ErrorEnvelope(ApiModel):
    """The body of every response that is not a success; also the stream's `error` event."""

    type: Literal["error"] = "error"
    error: ErrorBody
    request_id: str


def first_error(error: ValidationError) -> str:
    """The first finding as Anthropic words it: `messages.0.content.1.text.text: Field required`."""
    finding = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in finding["loc"])
    if finding["type"] == "union_tag_not_found":
        return f"{path}.type: Field required"
    message = _WORDS.get(finding["type"], finding["msg"]).replace("Tuple should", "List should")
    return f"{path}: {message}" if path else message
