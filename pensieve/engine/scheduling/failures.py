"""Failures of requests: the log has where one comes from, the client its text.

Apart from scheduler.py because that is pure. Errors of grammars are expected, and the front end
logs them.
"""

import logging

from pensieve.engine.protocol import Failed

_log = logging.getLogger("pensieve.engine")


def log_failure(error: Exception) -> Failed:
    """Log the error; return the event of the request that failed by it."""
    failed = Failed.of(error)
    if failed.kind != "grammar":
        _log.error("a request failed in the engine", exc_info=error)
    return failed


def log_restart(error: Exception) -> None:
    """Log the error of a step with several requests."""
    _log.error("a step failed, its requests start again, one at a time", exc_info=error)
