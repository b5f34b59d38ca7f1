"""`pensieve status`: shows the server's state.

Exit codes as for init scripts (LSB): 0 runs, 3 stopped, 4 unhealthy.
"""

import json
import time

from pensieve.cli.lifecycle.status_facts import as_json, facts, gigabytes, table
from pensieve.cli.lifecycle.version_mismatch import warn_of_other_version
from pensieve.cli.ui import output
from pensieve.daemon import server_lock
from pensieve.daemon.health_client import Health, ask
from pensieve.daemon.processes import memory_of
from pensieve.daemon.server_record import current
from pensieve.paths import Paths
from pensieve.settings import resolve as settings_module

UNHEALTHY = 4
CODES = {"ready": 0, "asleep": 0, "stopped": 3}
MESSAGES_WITHOUT_RECORD = {
    "starting": "pensieve is starting.",
    "stopped": "pensieve is not running.",
    "unreachable": "pensieve runs, but its record is missing or damaged.",
}
NEXT_STEPS = {
    "stopped": "Start it:\n  pensieve start",
    "unreachable": "Stop it, and start it again:\n  pensieve stop\n  pensieve start",
}


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
    health = ask(record) if record else Health("unreachable")
    state = health.status if record else _state_without_record(paths)
    memory_bytes = memory_of(record.pid) if record else 0
    if json_:
        output.data(json.dumps(as_json(state, record, health, memory_bytes), indent=2))
    elif record:
        rows = facts(record, health, time.time()) | {"memory": gigabytes(memory_bytes)}
        output.data(table(rows))
        warn_of_other_version(record, health)
    else:
        output.data(MESSAGES_WITHOUT_RECORD[state])
        if step := NEXT_STEPS.get(state):
            output.note(step)
    return CODES.get(state, UNHEALTHY)


def _state_without_record(paths: Paths) -> str:
    if not server_lock.is_held(paths):
        return "stopped"
    return "unreachable" if paths.server_file.exists() else "starting"
