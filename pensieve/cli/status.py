"""`pensieve status`: what runs and how it is. Exit codes as for init scripts (LSB): 0 runs, 3 stopped, 4 unhealthy."""

import time
from collections.abc import Mapping

from pensieve import settings as settings_module
from pensieve.cli import output
from pensieve.cli.progress import in_time
from pensieve.daemon import lock
from pensieve.daemon.health import Health, ask
from pensieve.daemon.record import ServerRecord, current

RUNNING = 0
STOPPED = 3
UNHEALTHY = 4


def status() -> int:
    """Show whether the server runs, where, and with which model.

    For example:
      pensieve status && pensieve chat "Hello"

    Exit code 0: it runs and is ready. 3: it does not run. 4: it loads, or is
    unhealthy.
    """
    paths = settings_module.resolve().paths
    record = current(paths)
    if record is None:
        is_starting = lock.is_held(paths)
        output.data("pensieve is starting." if is_starting else "pensieve is not running.")
        return UNHEALTHY if is_starting else STOPPED
    health = ask(record)
    output.data(table(facts(record, health, time.time())))
    return RUNNING if health.status == "ready" else UNHEALTHY


def facts(record: ServerRecord, health: Health, now: float) -> dict[str, str]:
    """What is known, in the order in which it is shown; an empty value is not shown."""
    model = health.model or record.model
    return {
        "status": f"{health.status} ({health.detail})" if health.detail else health.status,
        "address": record.base_url,
        "model": f"{model} ({health.repo})" if health.repo and health.repo != model else model,
        "context": f"{health.context_tokens} tokens" if health.context_tokens else "",
        "device": health.device or record.device,
        "in flight": str(health.in_flight) if health.status == "ready" else "",
        "restarts": str(health.restarts) if health.restarts else "",
        "uptime": in_time(max(0.0, now - record.started_at)),
        "pid": str(record.pid),
        "log": record.log,
        "version": health.version,
    }


def table(rows: Mapping[str, str]) -> str:
    """One row a line, values in one column."""
    shown = {name: value for name, value in rows.items() if value}
    width = max(map(len, shown), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown.items())
