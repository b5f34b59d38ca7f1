"""How OpenAI's API writes errors, events and keep-alive comments."""

from collections.abc import Mapping
from functools import partial

from pensieve.api.base import data_event
from pensieve.errors import (
    AuthenticationError,
    EngineBusyError,
    ForbiddenError,
    HeadTooLargeError,
    MethodNotAllowedError,
    ModelNotFoundError,
    NotFoundError,
    PromptTooLongError,
    PromptUnprocessableError,
    RateLimitedError,
    RequestError,
    RequestTooLargeError,
    TokensSpentError,
)
from pensieve.openai.errors import (
    CHAT_FIELDS,
    RESPONSES_FIELDS,
    TEXT_FIELDS,
    ErrorType,
    FieldPaths,
    OpenAIError,
    OpenAIErrorBody,
    too_long,
    with_param,
)
from pensieve.openai.responses.response import ErrorCode
from pensieve.server.errors import Failure
from pensieve.server.wire import ErrorStatus, Wire, status_in

# The end of every stream.
DONE = "data: [DONE]\n\n"
_NO_KEY = (
    "The API key is missing or wrong. Send pensieve's as `Authorization: Bearer KEY`; the command"
    " `pensieve env` prints it."
)


_INVALID: ErrorType = "invalid_request_error"
ERRORS: Mapping[type[BaseException], ErrorStatus[ErrorType]] = {
    PromptTooLongError: ErrorStatus(400, _INVALID, "context_length_exceeded"),
    PromptUnprocessableError: ErrorStatus(400, _INVALID, "context_length_exceeded"),
    AuthenticationError: ErrorStatus(401, _INVALID, "invalid_api_key"),
    ForbiddenError: ErrorStatus(403, _INVALID),
    ModelNotFoundError: ErrorStatus(404, _INVALID, "model_not_found"),
    NotFoundError: ErrorStatus(404, _INVALID, "not_found"),
    MethodNotAllowedError: ErrorStatus(405, _INVALID),
    RequestTooLargeError: ErrorStatus(413, _INVALID, "request_too_large"),
    TokensSpentError: ErrorStatus(429, "tokens", "rate_limit_exceeded"),
    RateLimitedError: ErrorStatus(429, "requests", "rate_limit_exceeded"),
    HeadTooLargeError: ErrorStatus(431, _INVALID, "request_too_large"),
    RequestError: ErrorStatus(400, _INVALID),
    EngineBusyError: ErrorStatus(503, "server_error", "server_is_overloaded"),
    BaseException: ErrorStatus(500, "server_error"),
}


def error_envelope(failure: Failure, fields: FieldPaths) -> OpenAIError:
    status = status_in(ERRORS, type(failure.error))
    message, param = _message(failure, fields)
    return OpenAIError(
        error=OpenAIErrorBody(
            message=message, type=status.kind, param=param, code=status.code or failure.code
        )
    )


def error_code(failure: Failure) -> ErrorCode:
    """Return the code with which an error fails a response that has begun."""
    if isinstance(failure.error, PromptTooLongError | PromptUnprocessableError):
        return "context_length_exceeded"
    return "invalid_prompt" if isinstance(failure.error, RequestError) else "server_error"


def _message(failure: Failure, fields: FieldPaths) -> tuple[str, str | None]:
    match failure.error:
        case PromptTooLongError(prompt_tokens=prompt, context_tokens=context):
            return too_long(prompt, context), fields.prompt
        case PromptUnprocessableError():
            return failure.message, fields.prompt
        case ModelNotFoundError():
            return f"There is no model '{failure.message.removeprefix('model: ')}'.", "model"
        case AuthenticationError():
            return _NO_KEY, None
        case _:
            return with_param(failure.message, fields)


def openai_wire(name: str, fields: FieldPaths) -> Wire:
    """Return the wire of a request with these fields, which its errors name."""
    return Wire(
        name,
        error_status=lambda kind: status_in(ERRORS, kind),
        error_body=partial(error_envelope, fields=fields),
        error_type=OpenAIError,
        error_event=lambda failure: data_event(error_envelope(failure, fields)) + DONE,
        ping=lambda: ": keep-alive\n\n",
    )


OPENAI = openai_wire("chat", CHAT_FIELDS)
OPENAI_TEXT = openai_wire("completions", TEXT_FIELDS)
# Its streams have events of their own for the last two (responses.py).
RESPONSES = openai_wire("responses", RESPONSES_FIELDS)
