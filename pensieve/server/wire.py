"""How an API writes its errors and keeps its streams alive. Each route names its wire (routes.py).

Anthropic's is the default before a request has a route: for a head that is not valid HTTP, and for
most paths of no route. Errors are looked up along their class's ancestors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from starlette.responses import Response

from pensieve.api.base import ApiModel, named_event
from pensieve.api.errors import ErrorBody, ErrorDetails, ErrorEnvelope, ErrorType
from pensieve.api.messages.events import Ping
from pensieve.errors import (
    AuthenticationError,
    EngineBusyError,
    ForbiddenError,
    HeadTooLargeError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    PensieveError,
    RateLimitedError,
    RequestError,
    RequestTooLargeError,
)
from pensieve.server.errors import Failure, failure_of

Kind_co = TypeVar("Kind_co", bound=str, covariant=True)


@dataclass(frozen=True)
class ErrorStatus(Generic[Kind_co]):
    status: int
    kind: Kind_co  # the `type` in the body
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Wire:
    name: str  # anthropic, chat, completions or responses
    error_status: Callable[[type[BaseException]], ErrorStatus[str]]
    error_body: Callable[[Failure], ApiModel]
    error_type: type[ApiModel]  # of the body
    error_event: Callable[[Failure], str]  # the last one of a stream that has begun
    ping: Callable[[], str]  # keeps a silent stream alive


def error_response(
    wire: Wire, error: BaseException, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        wire.error_body(failure_of(error, request_id)).to_json(),
        status_code=wire.error_status(type(error)).status,
        headers={**_retry_headers(error), **(headers or {})},
        media_type="application/json",
    )


def _retry_headers(error: BaseException) -> dict[str, str]:
    """Clients retry an overloaded server after this delay, and no request that would fail again."""
    if isinstance(error, EngineBusyError):
        return {"retry-after": str(error.retry_after_s)}
    if isinstance(error, RateLimitedError):
        waits = {} if error.should_retry else {"x-should-retry": "false"}
        return {"retry-after": str(error.retry_after_s), **waits}
    return {"x-should-retry": "false"} if isinstance(error, PensieveError) else {}


def status_in(
    table: Mapping[type[BaseException], ErrorStatus[Kind_co]], kind: type[BaseException]
) -> ErrorStatus[Kind_co]:
    return next(table[ancestor] for ancestor in kind.__mro__ if ancestor in table)


# Anthropic's.

_TABLE: Mapping[type[BaseException], ErrorStatus[ErrorType]] = {
    InvalidRequestError: ErrorStatus(400, "invalid_request_error"),
    AuthenticationError: ErrorStatus(401, "authentication_error"),
    ForbiddenError: ErrorStatus(403, "permission_error"),
    NotFoundError: ErrorStatus(404, "not_found_error"),
    MethodNotAllowedError: ErrorStatus(405, "invalid_request_error"),
    RequestTooLargeError: ErrorStatus(413, "request_too_large"),
    RateLimitedError: ErrorStatus(429, "rate_limit_error"),
    HeadTooLargeError: ErrorStatus(431, "request_too_large"),
    RequestError: ErrorStatus(400, "invalid_request_error"),
    EngineBusyError: ErrorStatus(529, "overloaded_error"),
    PensieveError: ErrorStatus(500, "api_error"),
    BaseException: ErrorStatus(500, "api_error"),
}


def error_envelope(failure: Failure) -> ErrorEnvelope:
    body = ErrorBody(
        type=status_in(_TABLE, type(failure.error)).kind,
        message=failure.message,
        details=None if failure.code is None else ErrorDetails(error_code=failure.code),
    )
    return ErrorEnvelope(error=body, request_id=failure.request_id)


ANTHROPIC = Wire(
    "anthropic",
    error_status=lambda kind: status_in(_TABLE, kind),
    error_body=error_envelope,
    error_type=ErrorEnvelope,
    error_event=lambda failure: named_event(error_envelope(failure)),
    ping=partial(named_event, Ping()),
)
