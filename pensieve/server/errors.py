"""What all errors of requests have in common, whatever the wire that writes them (wire.py)."""

import asyncio
import logging
import traceback
from dataclasses import dataclass

from pensieve.errors import EngineBusyError, PensieveError, RequestError

_log = logging.getLogger("pensieve.server")

# These do not answer a request: its task is cancelled, or the process ends. All others do, even
# those that are no `Exception`, such as a panic in a Rust library.
PASS_THROUGH = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)
INTERNAL_ERROR = "Internal server error"
STOPPING = EngineBusyError("The server is stopping.")
# For the error that a request gets when the server's stop cancels it.
FINAL_SEND_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as the client may see it."""

    error: BaseException
    message: str
    code: str | None  # for errors that clients handle specially
    request_id: str


def failure_of(error: BaseException, request_id: str) -> Failure:
    """Log an error that is not pensieve's own; the client sees an internal server error."""
    if not isinstance(error, PensieveError):
        _log.error("the request failed: %s", _trace(error))
        _log.debug("its error is: %s", error)
    message = error.message if isinstance(error, PensieveError) else INTERNAL_ERROR
    return Failure(
        error,
        # The message may quote the client's text, and a lone surrogate cannot be encoded.
        message.encode(errors="replace").decode(),
        error.error_code if isinstance(error, RequestError) else None,
        request_id,
    )


def _trace(error: BaseException) -> str:
    """Return the frames and types of an error and its causes, without their messages: those may
    quote the client's text.
    """
    frames = "".join(traceback.format_tb(error.__traceback__))
    cause = error.__cause__ or error.__context__
    return f"{type(error).__name__}\n{frames}{_trace(cause) if cause else ''}"


def release_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error that was answered.

    Their frames hold the request's body, and the error as well: a cycle that only a full garbage
    collection frees (20 bodies of 31 MiB: 860 MiB stayed, 2026-11-30).
    """
    chained: BaseException | None = error
    while chained is not None:
        chained.__traceback__ = None
        chained = chained.__cause__ or chained.__context__
