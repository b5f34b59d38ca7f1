"""The error envelope, and validation errors in Anthropic's wording. Knows no HTTP status."""

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
_MESSAGES = {
    "tuple_type": "Input should be a valid list",
    "model_type": "Input should be an object",
    "model_attributes_type": "Input should be an object",
}


class ErrorDetails(ApiModel):
    """Machine-readable code for errors that clients handle specially."""

    error_code: str


class ErrorBody(ApiModel):
    """What went wrong."""

    # Claude Code takes an error with other keys for another vendor's.

    type: ErrorType
    message: str
    details: ErrorDetails | None = Field(default=None, exclude_if=is_none)


class ErrorEnvelope(ApiModel):
    """The body of every error response; also the stream's `error` event."""

    type: Literal["error"] = "error"
    error: ErrorBody
    request_id: str


def first_error(error: ValidationError) -> str:
    """Return the first error as Anthropic writes it: `messages.0.content: Field required`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "union_tag_not_found":
        return f"{path}.type: Field required"
    message = _MESSAGES.get(first["type"], first["msg"]).replace("Tuple should", "List should")
    return f"{path}: {message}" if path else message
