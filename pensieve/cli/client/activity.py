"""What a server is doing and has done lately: `GET /activity` and `/activity/history` as values.

Parsing never fails: what an older server leaves out, or sends otherwise, is the field's default.
Texts are safe for a terminal afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any, TypeVar, cast

from pensieve.untrusted_text import one_line

ValueT = TypeVar("ValueT")

MAX_CHARS = 500
MAX_POINTS = 10_000
MAX_NUMBER = 2**63

# Unix seconds of the interval's end, and its value.
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request that generates, or waits for that. None: not known yet."""

    id: str = ""
    client: str = ""
    session: str | None = None
    priority: str = ""
    phase: str = ""  # reading, queued, prompt, answer
    age_s: float = 0.0
    prompt_tokens: int | None = None
    pictures: int | None = None
    cached_tokens: int | None = None
    processed_tokens: int | None = None  # of the prompt, cached ones included
    prompt_tokens_per_second: float | None = None
    remaining_s: float | None = None  # of the prompt
    output_tokens: int = 0
    max_tokens: int | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    ended_at: float = 0.0  # Unix seconds
    client: str = ""
    session: str | None = None
    status: int | None = None
    is_client_gone: bool = False
    total_s: float | None = None
    queue_s: float | None = None
    first_token_s: float | None = None
    prompt_tokens: int | None = None
    pictures: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    tokens_per_second: float | None = None
    diverged_at: int | None = None  # token at which the session's prompt left its last one


@dataclass(frozen=True, slots=True)
class EngineFigures:
    memory_limit_bytes: int = 0
    weights_bytes: int = 0
    kv_used_bytes: int = 0
    prefix_memory_bytes: int = 0
    prefix_disk_bytes: int = 0
    prefix_disk_cap_bytes: int = 0
    written_today_bytes: int = 0
    daily_write_budget_bytes: int = 0
    is_writing_paused: bool = False
    tokens_per_second: float = 0.0
    tokens_per_step: float = 0.0
    prompt_tokens_per_second: float = 0.0
    preempted: int = 0
    worker_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ServerState:
    """The part of `GET /health` that is watched."""

    status: str = ""
    detail: str = ""
    model: str = ""
    device: str = ""
    version: str = ""
    context_tokens: int = 0
    restarts: int = 0
    engine: EngineFigures | None = None  # while the model is loaded


@dataclass(frozen=True, slots=True)
class Replica:
    """One of several engines."""

    name: str = ""
    state: str = ""
    detail: str = ""
    in_flight: int = 0
    queued: int = 0
    restarts: int = 0
    tokens_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    severity: str = ""  # warning or error
    title: str = ""
    explanation: str = ""
    fix: str = ""  # commands


@dataclass(frozen=True, slots=True)
class Activity:
    at: float = 0.0  # the server's clock, Unix seconds
    state: ServerState = ServerState()
    requests: tuple[OpenRequest, ...] = ()  # oldest first
    replicas: tuple[Replica, ...] = ()  # none if there is one engine


@dataclass(frozen=True, slots=True)
class History:
    speed: tuple[Point, ...] = ()  # tokens per second of all answers together, in the last hour
    first_token: tuple[Point, ...] = ()  # seconds
    recent: tuple[FinishedRequest, ...] = ()  # newest first
    findings: tuple[Finding, ...] = ()


NO_ACTIVITY, NO_HISTORY = Activity(), History()


def activity_of(body: Mapping[str, object]) -> Activity:
    health = _object(body.get("health"))
    engine = _object(health.get("engine"))
    at = body.get("at")
    return Activity(
        float(cast("float", at)) if _fits(at, float) else 0.0,
        replace(
            _parsed(ServerState, health),
            engine=_parsed(EngineFigures, engine) if engine else None,
        ),
        tuple(_parsed(OpenRequest, each) for each in _list(body.get("requests"))),
        tuple(_parsed(Replica, each) for each in _list(health.get("replicas"))),
    )


def history_of(body: Mapping[str, object]) -> History:
    return History(
        _points(body.get("speed")),
        _points(body.get("first_token")),
        tuple(_parsed(FinishedRequest, each) for each in _list(body.get("recent"))),
        tuple(_parsed(Finding, each) for each in _list(body.get("findings"))),
    )


def _parsed(kind: type[ValueT], value: object) -> ValueT:
    """Return the dataclass with the fields whose values fit, and defaults for the others."""
    report = _object(value)
    return kind(
        **{
            each.name: _safe(report[each.name])
            for each in fields(cast("Any", kind))
            if each.name in report and _fits(report[each.name], each.type)
        }
    )


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of a field's type; an integer is a float too, a bool is neither."""
    match value:
        case bool():
            return kind is bool
        case int():
            return abs(value) <= MAX_NUMBER and (isinstance(0, kind) or isinstance(0.0, kind))
        case float():
            return isinstance(0.0, kind) and isfinite(value) and abs(value) <= MAX_NUMBER
        case _:
            return isinstance(value, kind)


def _safe(value: object) -> Any:
    return one_line(value[:MAX_CHARS].replace("\n", "; ")) if isinstance(value, str) else value


def _points(value: object) -> tuple[Point, ...]:
    pairs: list[list[Any]] = [_list(each) for each in _list(value)[:MAX_POINTS]]
    return tuple(
        (float(pair[0]), float(pair[1]))
        for pair in pairs
        if len(pair) == 2 and all(_fits(number, float) for number in pair)
    )


def _object(value: object) -> Mapping[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
