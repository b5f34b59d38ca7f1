"""Facts about a server for `status`, `start` and `restart`, as text and as JSON."""

import time
from collections.abc import Mapping
from dataclasses import asdict, fields

from pensieve.cli.ui.progress import in_bytes, in_time
from pensieve.daemon.health_client import Health
from pensieve.daemon.server_record import ServerRecord
from pensieve.engine.generation import EngineStats

SHOWS_CONTENT = "the texts of the last requests are kept and shown, with the key"
_STATS = tuple(each.name for each in fields(EngineStats))


def as_json(
    state: str,
    record: ServerRecord | None,
    health: Health,
    memory_bytes: int,
    requests: object = None,
) -> dict[str, object]:
    """Return the facts; every key is always present, unknown values are null.

    requests: those of `GET /activity`.
    """
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
        "host": health.host or None,
        "in_flight": health.in_flight if health.is_well else None,
        "requests": requests,
        "replicas": [asdict(each) for each in health.replicas] or None,
        "idle_unload": health.idle_unload,
        "shows_content": health.shows_content,
        "memory_bytes": memory_bytes or None,
        "uptime_s": round(max(0.0, time.time() - record.started_at), 1) if record else None,
        "restarts": health.restarts if record else None,
        "service": (record.service or None) if record else None,
        "log": (record.log or None) if record else None,
        "version": health.version or None,
        "speculation": asdict(health.speculation) if health.speculation else None,
        "engine": asdict(health.engine) if health.engine else dict.fromkeys(_STATS),
    }


def _device(health: Health) -> str:
    if not health.host:
        return health.device
    return f"{health.host}, {'one model, ' if health.has_ranks else ''}by ssh"


def facts(record: ServerRecord, health: Health, now: float) -> dict[str, str]:
    """Return the facts in display order; rows with an empty value are not displayed."""
    model = health.model or record.model
    return {
        "status": f"{health.status} ({health.detail})" if health.detail else health.status,
        "address": record.base_url,
        "model": f"{model} ({health.repo})" if health.repo and health.repo != model else model,
        "context": f"{health.context_tokens:,} tokens" if health.context_tokens else "",
        "device": _device(health) or record.device,
        "in flight": str(health.in_flight) if health.is_well else "",
        "engines": "\n".join(each.text for each in health.replicas),
        "requests": "",
        **engine_facts(health.engine),
        "speculation": _speculation(health, is_service=bool(record.service)),
        "memory": "",
        "unloads": _idle_unload(health.idle_unload),
        "content": SHOWS_CONTENT if health.shows_content else "",
        "restarts": str(health.restarts) if health.restarts else "",
        "uptime": in_time(max(0.0, now - record.started_at)),
        "pid": str(record.pid),
        "service": f"{record.service} (brew services)" if record.service else "",
        "log": record.log,
        "version": health.version,
    }


def engine_facts(engine: EngineStats | None) -> dict[str, str]:
    if engine is None:
        return {}
    rate = engine.tokens_per_second
    written = _share(engine.written_today_bytes, engine.daily_write_budget_bytes)
    return {
        "speed": f"{rate:.1f} tokens per second" if rate else "",
        "queued": str(engine.queued or ""),
        "preempted": f"{engine.preempted} times" if engine.preempted else "",
        "KV caches": _share(engine.kv_used_bytes, engine.kv_budget_bytes),
        "precision": engine.kv_reason,
        "cached": f"{gigabytes(engine.prefix_memory_bytes)} in memory,"
        f" {_share(engine.prefix_disk_bytes, engine.prefix_disk_cap_bytes)} on disk",
        "written": f"{written} today{' (writing paused)' if engine.is_writing_paused else ''}",
    }


def _speculation(health: Health, *, is_service: bool) -> str:
    """Return what drafts gave so far, else whether there are any and the command that helps."""
    if (state := health.speculation) is None:
        return ""
    engine = health.engine
    if engine is None or not (drafts := engine.drafts.total).drafted:
        fix = state.fix(is_service=is_service)
        return f"{state.text} ({fix})" if fix else state.text
    head = engine.drafts.mtp
    by_head = f", MTP {head.accepted / head.drafted:.0%}" if head.drafted else ""
    return (
        f"on: {engine.tokens_per_step:.1f} tokens a step,"
        f" {drafts.accepted:,} of {drafts.drafted:,} drafts accepted{by_head}"
    )


def table(rows: Mapping[str, str]) -> str:
    """Return a name and its value a line, aligned; empty values are left out."""
    nonempty = {name: value for name, value in rows.items() if value}
    width = max(map(len, nonempty), default=0)
    line_end = f"\n{'':{width}}  "
    return "\n".join(
        f"{name:<{width}}  {line_end.join(value.splitlines())}" for name, value in nonempty.items()
    )


def _idle_unload(minutes: float | None) -> str:
    if minutes is None:
        return ""
    return f"after {minutes:g} minutes without work" if minutes else "never"


def _share(part: int, whole: int) -> str:
    return f"{gigabytes(part)} of {gigabytes(whole)}" if whole else gigabytes(part)


def gigabytes(count: int) -> str:
    return in_bytes(count) if count else "nothing"
