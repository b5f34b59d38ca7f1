"""Ask the server for `GET /health` and parse the answer.

Used by the commands, doctor and `launch`. Standard library only, and never through a proxy.
"""

from contextlib import closing, suppress
from dataclasses import dataclass, fields, is_dataclass
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Literal, TypeVar, cast

from pensieve.credentials.trust import Trust
from pensieve.daemon.http_connection import http_connection
from pensieve.daemon.server_record import ServerRecord
from pensieve.engine.generation import EngineStats, SpeculationState
from pensieve.errors import AuthenticationError
from pensieve.untrusted_json import read_json

# asleep: the model is unloaded after a time without work; the next request waits for its loading.
Status = Literal["loading", "ready", "asleep", "failed", "unreachable"]

ValueT = TypeVar("ValueT")

TIMEOUT_S = 5.0
MAX_BYTES = 65536


@dataclass(frozen=True, slots=True)
class ReplicaHealth:
    """One of several engines of a server."""

    name: str
    state: str
    detail: str
    in_flight: int
    restarts: int

    @property
    def text(self) -> str:
        parts = (
            f"{self.state} ({self.detail})" if self.detail else self.state,
            f"{self.in_flight} in flight",
            f"{self.restarts} restarts" if self.restarts else "",
        )
        return f"{self.name}: {', '.join(part for part in parts if part)}"


@dataclass(frozen=True, slots=True)
class Health:
    """The server's state; numbers are 0 if the server did not send them."""

    status: Status
    detail: str = ""  # why it is not ready
    model: str = ""
    repo: str = ""
    device: str = ""
    host: str = ""  # the machine that computes, by ssh; empty: this one
    version: str = ""
    context_tokens: int = 0
    thinking: str = ""  # none, unbounded or bounded; empty from an older server
    in_flight: int = 0
    restarts: int = 0
    replicas: tuple[ReplicaHealth, ...] = ()  # none if there is one engine
    has_ranks: bool = False  # several machines share one model
    engine: EngineStats | None = None  # None: not sent, or not as this version knows them
    poison_prompts: int = 0  # refused, because the engine crashed repeatedly on each
    is_model_at_fault: bool = False  # failed because the model does not load
    idle_unload: float | None = None  # minutes without work until the model is unloaded; 0: never
    speculation: SpeculationState | None = None  # None: not decided yet, or not sent
    shows_content: bool | None = None  # the texts of its last requests; None: not sent

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
    try:
        with closing(http_connection(record.direct_url, record.trust, timeout_s)) as connection:
            connection.request("GET", "/health")
            body = read_json(connection.getresponse().read(MAX_BYTES))
    except (OSError, HTTPException, ValueError) as error:
        return Health("unreachable", f"no answer at {record.base_url}: {reason_of(error)}")
    return read(body, record.pid)


def require_key(base_url: str, trust: Trust, api_key: str, timeout_s: float = TIMEOUT_S) -> None:
    """Raise `AuthenticationError` if the server, which has been identified, refuses the key."""
    connection = http_connection(base_url, trust, timeout_s)
    with closing(connection), suppress(OSError, HTTPException):
        connection.request("GET", "/v1/models", headers={"x-api-key": api_key})
        if connection.getresponse().status == HTTPStatus.UNAUTHORIZED:
            raise key_refused()


def key_refused() -> AuthenticationError:
    return AuthenticationError(
        "The server rejects this key.",
        hint="It was started with another PENSIEVE_API_KEY than this shell's. Set the same\n"
        "one here, or restart the server with this shell's:\n  pensieve restart",
    )


def reason_of(error: OSError | HTTPException | ValueError) -> str:
    """Return for people why a request to the server failed."""
    match error:
        case TimeoutError():
            return "it does not answer in time"
        case ConnectionRefusedError():
            return "nothing listens there"
        case OSError() | HTTPException():
            return "the connection was closed"
        case _:
            return "what answers there is not pensieve"


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
        host=_text(report, "host"),
        version=_text(report, "version"),
        context_tokens=_number(report, "context_tokens"),
        thinking=_text(report, "thinking"),
        in_flight=_number(report, "in_flight"),
        restarts=_number(report, "restarts"),
        replicas=_replicas(report.get("replicas")),
        has_ranks=bool(report.get("ranks")),
        engine=_parsed(EngineStats, report.get("engine")),
        poison_prompts=_number(report, "poison_prompts"),
        is_model_at_fault=report.get("is_model_at_fault") is True,
        idle_unload=minutes if isinstance(minutes := report.get("idle_unload"), float) else None,
        speculation=SpeculationState.from_json(report.get("speculation")),
        shows_content=shows if isinstance(shows := report.get("shows_content"), bool) else None,
    )


def _replicas(value: object) -> tuple[ReplicaHealth, ...]:
    reports = cast("list[object]", value) if isinstance(value, list) else []
    parsed = (_parsed(ReplicaHealth, report) for report in reports)
    return tuple(each for each in parsed if each)


def _parsed(kind: type[ValueT], value: object) -> ValueT | None:
    """Parse a dataclass; None unless all its fields are there. A newer server may send more."""
    report = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    kinds: dict[str, Any] = {each.name: each.type for each in fields(cast("Any", kind))}
    values: dict[str, Any] = {
        name: _parsed(cast("Any", of), report.get(name)) if is_dataclass(of) else report.get(name)
        for name, of in kinds.items()
    }
    is_whole = all(_is_of(values[name], of) for name, of in kinds.items())
    return kind(**values) if is_whole else None


def _is_of(value: object, kind: Any) -> bool:
    """Whether a value is of a field's type; an integer is a float too, a bool is neither."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _text(report: dict[str, object], key: str) -> str:
    value = report.get(key)
    return value if isinstance(value, str) else ""


def _number(report: dict[str, object], key: str) -> int:
    value = report.get(key)
    return value if isinstance(value, int) else 0
