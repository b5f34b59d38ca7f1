"""What the server answers to `GET /health`, as a value. Stdlib only, and never through a proxy."""

from contextlib import closing
from dataclasses import dataclass, fields
from http.client import HTTPConnection, HTTPException
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

from pensieve.daemon.server_record import ServerRecord
from pensieve.untrusted_json import read_json

# asleep: there was no work for long; the model is loaded for the next request, which waits for it.
Status = Literal["loading", "ready", "asleep", "failed", "unreachable"]

TIMEOUT_S = 5.0
MAX_BYTES = 65536


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What the engine says of its memory, its disk and its speed; None where it did not say.

    kv: KV caches of conversations. prefix: kept prompts. kv_reason: why the KV cache has that many bits (None: full).
    """

    kv_bits: int | None = None
    kv_reason: str | None = None
    memory_limit_bytes: int | None = None
    weights_bytes: int | None = None
    kv_budget_bytes: int | None = None
    kv_used_bytes: int | None = None
    prefix_memory_bytes: int | None = None
    prefix_disk_bytes: int | None = None
    prefix_disk_cap_bytes: int | None = None
    written_today_bytes: int | None = None
    daily_write_budget_bytes: int | None = None
    is_writing_paused: bool | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How the server is. `detail` says why where it is not ready; numbers are 0 where it did not say.

    poison_prompts: refused, since the engine died of each again and again.
    """

    status: Status
    detail: str = ""
    model: str = ""
    repo: str = ""
    device: str = ""
    version: str = ""
    context_tokens: int = 0
    thinking: str = ""  # none, unbounded or bounded; empty from an older server
    in_flight: int = 0
    restarts: int = 0
    engine: EngineFigures = EngineFigures()
    poison_prompts: int = 0
    is_model_at_fault: bool = False  # failed, since the model does not load
    idle_unload: float | None = None  # minutes without work until the model leaves memory; 0 never

    @property
    def is_well(self) -> bool:
        """Whether it answers requests."""
        return self.status in {"ready", "asleep"}


def ask(record: ServerRecord, timeout_s: float = TIMEOUT_S) -> Health:
    """The health of the recorded server; `unreachable` where it does not answer or another one does."""
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
    """The value of a decoded answer. `pid`: the server that should have given it."""
    said = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    status = said.get("status")
    if status not in ("loading", "ready", "asleep", "failed") or said.get("pid") != pid:
        return Health("unreachable", "another program answers at its address")
    return Health(
        status=status,
        detail=_text(said, "detail"),
        model=_text(said, "model"),
        repo=_text(said, "repo"),
        device=_text(said, "device"),
        version=_text(said, "version"),
        context_tokens=_number(said, "context_tokens"),
        thinking=_text(said, "thinking"),
        in_flight=_number(said, "in_flight"),
        restarts=_number(said, "restarts"),
        engine=_figures(said.get("engine")),
        poison_prompts=_number(said, "poison_prompts"),
        is_model_at_fault=said.get("is_model_at_fault") is True,
        idle_unload=minutes if isinstance(minutes := said.get("idle_unload"), float) else None,
    )


def _figures(said: object) -> EngineFigures:
    """Each figure where it is of its kind; a server of another version may say more, or less."""
    told = cast("dict[str, object]", said) if isinstance(said, dict) else {}
    kinds = {each.name: get_args(each.type) for each in fields(EngineFigures)}
    known = {
        name: told[name]
        for name, (kind, _) in kinds.items()
        if type(told.get(name)) in ({int, float} if kind is float else {kind})
    }
    return EngineFigures(**cast("dict[str, Any]", known))


def _text(said: dict[str, object], key: str) -> str:
    value = said.get(key)
    return value if isinstance(value, str) else ""


def _number(said: dict[str, object], key: str) -> int:
    value = said.get(key)
    return value if isinstance(value, int) else 0
