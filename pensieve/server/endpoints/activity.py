"""`GET /activity`: what the server does now. `GET /activity/history`: what it did in the last hour.

Both need a key: they tell which programs are in use, and when. A named key is told of its own
requests alone, and neither the log nor what is wrong with the machine.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pensieve.logs import own_tail
from pensieve.server.activity.findings import FindingsCache
from pensieve.server.activity.record import RequestRecord
from pensieve.server.activity.registry import INTERVAL_S, Activity
from pensieve.server.activity.report import ended_request, open_request, session_names
from pensieve.server.middleware.request_context import key_name_of, request_context_of
from pensieve.worker_threads import run_in_thread

LOG_LINES = 100
HealthReport = Callable[[], Mapping[str, Any]]


class ActivityEndpoint:
    def __init__(
        self,
        activity: Activity,
        health: HealthReport,
        findings: FindingsCache,
        log: Path | None,  # None: it is no file
    ) -> None:
        self._activity = activity
        self._health = health
        self._findings = findings
        self._log = log
        self._session_name = session_names(secrets.token_bytes(16))

    async def now(self, request: Request) -> Response:
        request_context_of(request.scope).is_poll = True
        requests = _visible(self._activity.requests, request)
        return JSONResponse(
            {
                "at": self._activity.now,
                "health": self._health(),
                "requests": [open_request(record, self._session_name) for record in requests],
            }
        )

    async def history(self, request: Request) -> Response:
        request_context_of(request.scope).is_poll = True
        intervals, recent = self._activity.last_hour, _visible(self._activity.recent, request)
        is_own = not key_name_of(request)
        return JSONResponse(
            {
                "at": self._activity.now,
                "interval_s": INTERVAL_S,
                "speed": [
                    (interval.began_at, round(speed, 2))
                    for interval in intervals
                    if (speed := interval.tokens_per_second) is not None
                ],
                "first_token": [
                    (interval.began_at, round(first, 3))
                    for interval in intervals
                    if (first := interval.median_first_token_s) is not None
                ],
                "recent": [ended_request(record, self._session_name) for record in recent],
                "findings": await self._findings.latest() if is_own else [],
                "log": await run_in_thread(self._log_lines) if is_own else [],
            }
        )

    def _log_lines(self) -> list[str]:
        return own_tail(self._log, LOG_LINES) if self._log else []


def _visible(records: Iterable[RequestRecord], request: Request) -> list[RequestRecord]:
    """Return all for the server's own key, for a named one those of it."""
    name = key_name_of(request)
    return [record for record in records if not name or record.key_name == name]
