"""What the server answers to `GET /health`, as a value. Stdlib only, and never through a proxy."""

import json
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Literal, cast
from urllib.parse import urlsplit

from pensieve.daemon.record import ServerRecord

Status = Literal["loading", "ready", "failed", "unreachable"]

TIMEOUT_S = 5.0
LARGEST_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Health:
    """How the server is. `detail` says why where it is not ready; numbers are 0 where it did not say."""

    status: Status
    detail: str = ""
    model: str = ""
    repo: str = ""
    device: str = ""
    version: str = ""
    context_tokens: int = 0
    in_flight: int = 0
    restarts: int = 0


def ask(record: ServerRecord, timeout_s: float = TIMEOUT_S) -> Health:
    """The health of the recorded server; `unreachable` where it does not answer or another one does."""
    address = urlsplit(record.base_url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    try:
        with closing(connection):
            connection.request("GET", "/health")
            body = json.loads(connection.getresponse().read(LARGEST_BYTES))
    except (OSError, HTTPException, ValueError) as error:
        return Health("unreachable", f"no answer at {record.base_url} ({type(error).__name__})")
    return read(body, record.pid)


def read(body: object, pid: int) -> Health:
    """The value of a decoded answer. `pid`: the server that should have given it."""
    said = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    status = said.get("status")
    if status not in ("loading", "ready", "failed") or said.get("pid") != pid:
        return Health("unreachable", "another program answers at its address")
    return Health(
        status=status,
        detail=_text(said, "detail"),
        model=_text(said, "model"),
        repo=_text(said, "repo"),
        device=_text(said, "device"),
        version=_text(said, "version"),
        context_tokens=_number(said, "context_tokens"),
        in_flight=_number(said, "in_flight"),
        restarts=_number(said, "restarts"),
    )


def _text(said: dict[str, object], key: str) -> str:
    value = said.get(key)
    return value if isinstance(value, str) else ""


def _number(said: dict[str, object], key: str) -> int:
    value = said.get(key)
    return value if isinstance(value, int) else 0
