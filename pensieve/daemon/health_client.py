"""Ask the server for `GET /health` and parse the answer.

Used by the commands, doctor and `launch`. Standard library only, and never through a proxy.
"""

from contextlib import closing
from dataclasses import dataclass, fields
from http.client import HTTPConnection, HTTPException
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

from pensieve.daemon.server_record import ServerRecord
from pensieve.untrusted_json import read_json

# asleep: the model is unloaded after a time without work; the next request waits for its loading.
Status = Literal["loading", "ready", "asleep", "failed", "unreachable"]

TIMEOUT_S = 5.0
MAX_BYTES = 65536


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """The engine's memory, disk and speed; None for values that the server did not send."""

    kv_bits: int | None = None  # of the KV caches of conversations
    kv_reason: str | None = None  # why `kv_bits` was chosen; None: full precision
    memory_limit_bytes: int | None = None
    weights_bytes: int | None = None
    kv_budget_bytes: int | None = None
    kv_used_bytes: int | None = None
    # prefix: the cache of earlier prompts
    prefix_memory_bytes: int | None = None
    prefix_disk_bytes: int | None = None
    prefix_disk_cap_bytes: int | None = None
    written_today_bytes: int | None = None
    daily_write_budget_bytes: int | None = None
    is_writing_paused: bool | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The server's state; numbers are 0 if the server did not send them."""

    status: Status
    detail: str = ""  # why it is not ready
    model: str = ""
    repo: str = ""
    device: str = ""
    version: str = ""
    context_tokens: int = 0
    thinking: str = ""  # none, unbounded or bounded; empty from an older server
    in_flight: int = 0
    restarts: int = 0
    engine: EngineFigures = EngineFigures()
    poison_prompts: int = 0  # refused, because the engine crashed repeatedly on each
    is_model_at_fault: bool = False  # failed because the model does not load
    idle_unload: float | None = None  # minutes without work until the model is unloaded; 0: never

    @property
    def is_well(self) -> bool:
        """Whether it answers requests."""
        return self.status in {"ready", "asleep"}


def ask(record: ServerRecord, timeout_s: float = TIMEOUT_S) -> Health:
    """Return the recorded server's health; `unreachable` if it does not answer, or another one
    does.
    """
    if record.phase == "fetching":
        return Health("loading", "fetching the model")
    address = urlsplit(record.base_url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=timeout_s)
    try:
        with closing(connection):
            connection.request("GET", "/health")
            body = read_json(connection.getresponse().read(MAX_BYTES))
    except (OSError, HTTPException, ValueError) as error:
        return Health("unreachable", f"no answer at {record.base_url} ({type(error).__name__})")
    return read(body, record.pid)


def read(body: object, pid: int) -> Health:
    """Parse a decoded answer. `pid`: the server that is expected to answer."""
    report = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    status = report.get("status")
    if status not in ("loading", "ready", "asleep", "failed") or report.get("pid") != pid:
        return Health("unreachable", "another program answers at its address")
    return Health(
        status=status,
        detail=_text(report, "detail"),
        model=_text(report, "model"),
        repo=_text(report, "repo"),
        device=_text(report, "device"),
        version=_text(report, "version"),
        context_tokens=_number(report, "context_tokens"),
        thinking=_text(report, "thinking"),
        in_flight=_number(report, "in_flight"),
        restarts=_number(report, "restarts"),
        engine=_engine_figures(report.get("engine")),
        poison_prompts=_number(report, "poison_prompts"),
        is_model_at_fault=report.get("is_model_at_fault") is True,
        idle_unload=minutes if isinstance(minutes := report.get("idle_unload"), float) else None,
    )


def _engine_figures(value: object) -> EngineFigures:
    """Take the values of the expected type; another version's server may send more or fewer."""
    report = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    kinds = {each.name: get_args(each.type) for each in fields(EngineFigures)}
    values = {
        name: report[name]
        for name, (kind, _) in kinds.items()
        if type(report.get(name)) in ({int, float} if kind is float else {kind})
    }
    return EngineFigures(**cast("dict[str, Any]", values))


def _text(report: dict[str, object], key: str) -> str:
    value = report.get(key)
    return value if isinstance(value, str) else ""


def _number(report: dict[str, object], key: str) -> int:
    value = report.get(key)
    return value if isinstance(value, int) else 0
