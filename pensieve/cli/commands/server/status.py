"""`pensieve status`: shows the server's state.

Exit codes as for init scripts (LSB): 0 runs, 3 stopped, 4 unhealthy.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress

from pensieve.cli.client.connection import Server
from pensieve.cli.lifecycle.status_facts import as_json, facts, gigabytes, table
from pensieve.cli.lifecycle.version_mismatch import warn_of_other_version
from pensieve.cli.ui import output
from pensieve.daemon import server_lock
from pensieve.daemon.health_client import Health, ask
from pensieve.daemon.processes import memory_of
from pensieve.daemon.server_record import ServerRecord, current, lost_record
from pensieve.errors import PensieveError
from pensieve.paths import Paths
from pensieve.settings import resolve as settings_module

UNHEALTHY = 4
CODES = {"ready": 0, "asleep": 0, "stopped": 3}


def status(*, json_: bool = False) -> int:
    """Show whether the server runs, where, and with which model.

    For example:
      pensieve status && pensieve chat "Hello"
      pensieve status --json

    Exit code 0: it runs (asleep: the next request loads the model again).
    3: it does not run. 4: it is starting, or unhealthy.

    Parameters
    ----------
    json_
        Print one JSON object instead.
    """
    paths = settings_module.resolve_paths()
    record = current(paths)
    if record is None:
        return _without_record(paths, is_json=json_)
    health, memory_bytes = ask(record), memory_of(record.pid)
    activity = _activity(record, health)
    if json_:
        requests = None if activity is None else activity.get("requests", [])
        report = as_json(health.status, record, health, memory_bytes, requests)
        output.data(json.dumps(report, indent=2))
    else:
        rows = facts(record, health, time.time()) | {"memory": gigabytes(memory_bytes)}
        output.data(table(rows | {"requests": _requests(activity)}))
        warn_of_other_version(record, health)
    return CODES.get(health.status, UNHEALTHY)


def _activity(record: ServerRecord, health: Health) -> Mapping[str, object] | None:
    """Return what the server works on; None if it cannot be asked, or not with these settings."""
    if not health.in_flight:
        return {} if health.is_well else None
    # Not needed for the status of an idle server, which shells' prompts show.
    from pensieve.cli.client.activity_reader import ACTIVITY, read_activity

    with suppress(PensieveError):
        api_key = settings_module.resolve().api_key
        server = Server(record.direct_url, api_key, record.pid, record.trust)
        (activity,) = read_activity(server, ACTIVITY)
        return activity
    return None


def _requests(activity: Mapping[str, object] | None) -> str:
    """Return a line for each open request, below each other in the table's second column."""
    if not activity:
        return ""
    from pensieve.cli.client.activity import activity_of
    from pensieve.cli.lifecycle.request_progress import request_lines

    return "\n".join(request_lines(activity_of(activity)))


def _without_record(paths: Paths, *, is_json: bool) -> int:
    state, message, next_step = _state_without_record(paths)
    if is_json:
        health = Health("unreachable", message if state == "unreachable" else "")
        output.data(json.dumps(as_json(state, None, health, 0), indent=2))
    else:
        output.data(message)
        if next_step:
            output.note(next_step)
    return CODES.get(state, UNHEALTHY)


def _state_without_record(paths: Paths) -> tuple[str, str, str | None]:
    """Return the state, what to say of it, and the next step."""
    if error := lost_record(paths):
        return "unreachable", error.message, error.hint
    if server_lock.is_held(paths):
        return "starting", "pensieve is starting.", None
    return "stopped", "pensieve is not running.", "Start it:\n  pensieve start"
