"""`pensieve status`: what runs and how it is. Exit codes as for init scripts (LSB): 0 runs, 3 stopped, 4 unhealthy."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict

from pensieve.cli.commands.server.version_mismatch import warn_of_other_version
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import in_bytes, in_time
from pensieve.daemon import server_lock
from pensieve.daemon.health_client import EngineFigures, Health, ask
from pensieve.daemon.processes import memory_of
from pensieve.daemon.server_record import ServerRecord, current
from pensieve.settings import resolve as settings_module

UNHEALTHY = 4
CODES = {"ready": 0, "asleep": 0, "stopped": 3}
WITHOUT_A_RECORD = {"starting": "pensieve is starting.", "stopped": "pensieve is not running."}


def status(*, json_: bool = False) -> int:
    """Show whether the server runs, where, and with which model.

    For example:
      pensieve status && pensieve chat "Hello"
      pensieve status --json

    Exit code 0: it runs and answers; asleep, once its model is loaded again.
    3: it does not run. 4: it starts, or is unhealthy.

    Parameters
    ----------
    json_
        As one JSON object.
    """
    paths = settings_module.resolve_paths()
    record = current(paths)
    health = ask(record) if record else Health("unreachable")
    state = health.status if record else "starting" if server_lock.is_held(paths) else "stopped"
    memory_bytes = memory_of(record.pid) if record else 0
    if json_:
        output.data(json.dumps(as_json(state, record, health, memory_bytes), indent=2))
    elif record:
        shown = facts(record, health, time.time()) | {"memory": _gigabytes(memory_bytes)}
        output.data(table(shown))
        warn_of_other_version(record, health)
    else:
        output.data(WITHOUT_A_RECORD[state])
        if state == "stopped":
            output.note("Start it:\n  pensieve start")
    return CODES.get(state, UNHEALTHY)


def as_json(
    state: str, record: ServerRecord | None, health: Health, memory_bytes: int
) -> dict[str, object]:
    """Every key is always there; null where nothing is known."""
    model = health.model or (record.model if record else "")
    return {
        "status": state,
        "detail": health.detail or None,
        "url": record.base_url if record else None,
        "pid": record.pid if record else None,
        "model": model or None,
        "repo": health.repo or None,
        "context_tokens": health.context_tokens or None,
        "device": health.device or (record.device if record else None),
        "in_flight": health.in_flight if health.is_well else None,
        "idle_unload": health.idle_unload,
        "memory_bytes": memory_bytes or None,
        "uptime_s": round(max(0.0, time.time() - record.started_at), 1) if record else None,
        "restarts": health.restarts if record else None,
        "service": (record.service or None) if record else None,
        "log": (record.log or None) if record else None,
        "version": health.version or None,
        "engine": asdict(health.engine),
    }


def facts(record: ServerRecord, health: Health, now: float) -> dict[str, str]:
    """What is known, in the order in which it is shown; an empty value is not shown."""
    model = health.model or record.model
    return {
        "status": f"{health.status} ({health.detail})" if health.detail else health.status,
        "address": record.base_url,
        "model": f"{model} ({health.repo})" if health.repo and health.repo != model else model,
        "context": f"{health.context_tokens:,} tokens" if health.context_tokens else "",
        "device": health.device or record.device,
        "in flight": str(health.in_flight) if health.is_well else "",
        **figures(health.engine),
        "memory": "",
        "unloads": _unloading(health.idle_unload),
        "restarts": str(health.restarts) if health.restarts else "",
        "uptime": in_time(max(0.0, now - record.started_at)),
        "pid": str(record.pid),
        "service": f"{record.service} (brew services)" if record.service else "",
        "log": record.log,
        "version": health.version,
    }


def figures(engine: EngineFigures) -> dict[str, str]:
    """What the engine says of itself, for people."""
    rate = engine.tokens_per_second
    return {
        "speed": f"{rate:.1f} tokens per second" if rate else "",
        "KV caches": _share(engine.kv_used_bytes, engine.kv_budget_bytes),
        "precision": engine.kv_reason or "",
        "kept": _joined(
            f"{_gigabytes(engine.prefix_memory_bytes)} in memory,"
            if engine.prefix_memory_bytes is not None
            else "",
            _share(engine.prefix_disk_bytes, engine.prefix_disk_cap_bytes),
            "on disk" if engine.prefix_disk_bytes is not None else "",
        ),
        "written": _joined(
            _share(engine.written_today_bytes, engine.daily_write_budget_bytes),
            "today" if engine.written_today_bytes is not None else "",
            "(enough for today)" if engine.is_writing_paused else "",
        ),
    }


def table(rows: Mapping[str, str]) -> str:
    """One row a line, values in one column."""
    shown = {name: value for name, value in rows.items() if value}
    width = max(map(len, shown), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown.items())


def _unloading(minutes: float | None) -> str:
    if minutes is None:
        return ""
    return f"after {minutes:g} minutes without work" if minutes else "never"


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)


def _share(part: int | None, whole: int | None) -> str:
    if part is None:
        return ""
    return f"{_gigabytes(part)} of {_gigabytes(whole)}" if whole else _gigabytes(part)


def _gigabytes(count: int | None) -> str:
    return in_bytes(count) if count else "nothing" if count == 0 else ""
