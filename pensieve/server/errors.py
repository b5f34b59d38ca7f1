"""The one table from pensieve's errors to HTTP: status, Anthropic's error type, retry headers.

Errors are looked up along their class's ancestors. An error that is not pensieve's own is logged,
and the client sees an internal server error.
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

# These do not answer a request: its task is cancelled, or the process ends. All others do, even
# those that are no `Exception`, such as a panic in a Rust library.
PASS_THROUGH = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)
INTERNAL_ERROR = "Internal server error"
STOPPING = EngineBusyError("The server is stopping.")


@dataclass(frozen=True, slots=True)
class ErrorStatus:
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


def error_status_of(error: BaseException) -> ErrorStatus:
    return error_status_of_class(type(error))


def error_status_of_class(kind: type[BaseException]) -> ErrorStatus:
    return next(_TABLE[ancestor] for ancestor in kind.__mro__ if ancestor in _TABLE)


def error_envelope(error: BaseException, request_id: str) -> ErrorEnvelope:
    """Return Anthropic's envelope for `error`, which is also the `error` event of a stream.

    Logs errors that are not pensieve's own.
    """
    code = error.error_code if isinstance(error, RequestError) else None
    if isinstance(error, PensieveError):
        message = error.message
    else:
        _log.error("%s failed", request_id, exc_info=error)
        message = INTERNAL_ERROR
    body = ErrorBody(
        type=error_status_of(error).kind,
        # The message may quote the client's text, and a lone surrogate cannot be encoded.
        message=message.encode(errors="replace").decode(),
        details=None if code is None else ErrorDetails(error_code=code),
    )
    return ErrorEnvelope(error=body, request_id=request_id)


def error_response(
    error: BaseException, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        error_envelope(error, request_id).to_json(),
        status_code=error_status_of(error).status,
        headers={**_retry_headers(error), **(headers or {})},
        media_type="application/json",
    )


def release_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error that was answered.

    Their frames hold the request's body, and the error as well: a cycle that only a full garbage
    collection frees (20 bodies of 31 MiB: 860 MiB stayed, 2026-11-30).
    """
    chained: BaseException | None = error
    while chained is not None:
        chained.__traceback__ = None
        chained = chained.__cause__ or chained.__context__


def _retry_headers(error: BaseException) -> dict[str, str]:
    """Clients retry an overloaded server after this delay, and no request that would fail again."""
    if isinstance(error, EngineBusyError):
        return {"retry-after": str(error.retry_after_s)}
    return {"x-should-retry": "false"} if isinstance(error, PensieveError) else {}
