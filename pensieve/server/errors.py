"""The one table from pensieve's errors to HTTP: status, Anthropic's error type, what to say about retrying.

Errors are looked up along their class's ancestors; what is not ours is a fault of the server, logged and not shown.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.responses import Response

from pensieve.api.errors import ErrorBody, ErrorDetails, ErrorEnvelope, ErrorType
from pensieve.errors import (
    AuthenticationError,
    EngineBusyError,
    ForbiddenError,
    HeadTooLargeError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    PensieveError,
    RequestError,
    RequestTooLargeError,
)

_log = logging.getLogger("pensieve.server")

# What is no failure of a request: its task is cancelled, or the process ends. All else is one, also what is no `Exception`:
# a Rust library's panic.
PASSING = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)
INTERNAL = "Internal server error"
STOPPING = EngineBusyError("The server is stopping.")


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """How an error looks from outside."""

    status: int
    kind: ErrorType


_TABLE: Mapping[type[BaseException], ErrorStatus] = {
    InvalidRequestError: ErrorStatus(400, "invalid_request_error"),
    AuthenticationError: ErrorStatus(401, "authentication_error"),
    ForbiddenError: ErrorStatus(403, "permission_error"),
    NotFoundError: ErrorStatus(404, "not_found_error"),
    MethodNotAllowedError: ErrorStatus(405, "invalid_request_error"),
    RequestTooLargeError: ErrorStatus(413, "request_too_large"),
    HeadTooLargeError: ErrorStatus(431, "request_too_large"),
    RequestError: ErrorStatus(400, "invalid_request_error"),
    EngineBusyError: ErrorStatus(529, "overloaded_error"),
    PensieveError: ErrorStatus(500, "api_error"),
    BaseException: ErrorStatus(500, "api_error"),
}


def fault_of(error: BaseException) -> ErrorStatus:
    """The table's row for `error`."""
    return fault_of_class(type(error))


def fault_of_class(kind: type[BaseException]) -> ErrorStatus:
    """The table's row for errors of this class."""
    return next(_TABLE[ancestor] for ancestor in kind.__mro__ if ancestor in _TABLE)


def error_envelope(error: BaseException, request_id: str) -> ErrorEnvelope:
    """Anthropic's envelope around `error`; also the `error` event of a stream. An unexpected error is logged."""
    code = error.error_code if isinstance(error, RequestError) else None
    if isinstance(error, PensieveError):
        message = error.message
    else:
        _log.error("%s failed", request_id, exc_info=error)
        message = INTERNAL
    body = ErrorBody(
        type=fault_of(error).kind,
        # What a client sent may be in it, and half a surrogate cannot be written.
        message=message.encode(errors="replace").decode(),
        details=None if code is None else ErrorDetails(error_code=code),
    )
    return ErrorEnvelope(error=body, request_id=request_id)


def error_response(
    error: BaseException, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The whole response that tells of `error`."""
    return Response(
        error_envelope(error, request_id).to_json(),
        status_code=fault_of(error).status,
        headers={**_retry_headers(error), **(headers or {})},
        media_type="application/json",
    )


def let_go(error: BaseException) -> None:
    """Part an answered error from the frames that it came through. They hold the request's body, and the error as well: a cycle
    that is undone only when the collector next looks at everything (20 bodies of 31 MiB: 860 MiB stayed, 2026-11-30).
    """
    told: BaseException | None = error
    while told is not None:
        told.__traceback__ = None
        told = told.__cause__ or told.__context__


def _retry_headers(error: BaseException) -> dict[str, str]:
    """Clients repeat what is busy, after this long, and nothing that would fail again."""
    if isinstance(error, EngineBusyError):
        return {"retry-after": str(error.retry_after_s)}
    return {"x-should-retry": "false"} if isinstance(error, PensieveError) else {}
