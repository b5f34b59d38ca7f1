"""Messages of `start`, `restart` and `stop` about a new, running or interrupted server."""

import shlex
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from pensieve.cli.lifecycle.status_facts import SHOWS_CONTENT, facts, table
from pensieve.cli.lifecycle.version_mismatch import warn_of_other_version
from pensieve.cli.ui import output
from pensieve.cli.ui.shells import shell_of, usage
from pensieve.daemon.health_client import Health
from pensieve.daemon.launch import RunningServer
from pensieve.daemon.server_record import require, restart_command
from pensieve.errors import StartFailedError
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Flags, Settings, SpeculationMode


def report(server: RunningServer, flags: Flags) -> int:
    """Print address, model and next commands. Raises `StartFailedError` if it is unhealthy."""
    record, health = server.record, server.health
    require_healthy(server)
    where = f"(pid {record.pid}, {record.base_url})"
    output.data(f"pensieve {'is running' if server.is_new else 'is already running'} {where}.")
    warn_of_other_version(record, health)
    rows = facts(record, health, record.started_at)
    output.data(table({f"  {name}": rows[name] for name in ("model", "context", "device")}))
    if health.shows_content:
        output.warning(f"{SHOWS_CONTENT} (show_content).")
    if not server.is_new:
        _note_differences(server, flags)
    output.data("\nNext:")
    output.data('  pensieve chat "Why is the sky blue?"')
    output.data("  pensieve claude             # Claude Code on this model")
    output.data(f"  {usage(shell_of(settings_module.shell_path()))}    # for any other client")
    output.data("  pensieve top                # watch it, or open its address in a browser")
    return 0


def require_healthy(server: RunningServer) -> None:
    """Raise `StartFailedError` if a server that was running before answers no requests."""
    record, health = server.record, server.health
    if health.is_well:
        return
    state = "its engine has failed" if health.status == "failed" else f"it is {health.status}"
    why = f": {health.detail}" if health.detail else "."
    raise StartFailedError(
        f"pensieve is already running (pid {record.pid}, {record.base_url}), but {state}{why}",
        hint=f"Restart it:\n  {restart_command(record)}",
    )


def report_already_running(settings: Settings) -> int:
    """Report a server that runs or starts. Raises `RecordUnreadableError`."""
    record = require(settings.paths)
    if record is None or record.phase == "fetching":
        output.note("pensieve is already starting.")
    else:
        output.note(f"pensieve is already running (pid {record.pid}, {record.base_url}).")
    return 0


@contextmanager
def interruption_note(consequence: str) -> Generator[None]:
    """Print `consequence` if Ctrl-C ends the block."""
    try:
        yield
    except KeyboardInterrupt:
        output.note(f"Interrupted. {consequence}")
        raise


def _speculation_of(health: Health) -> SpeculationMode:
    return "off" if health.speculation and health.speculation.reason == "setting" else "auto"


def _note_differences(server: RunningServer, flags: Flags) -> None:
    flags_before = server.record.flags
    actual = {
        "model": {server.record.model, server.health.repo},
        "device": {server.record.device},
        "host": {server.record.host},
        "port": {server.record.port},
        "idle_unload": {server.health.idle_unload},
        "speculation": {_speculation_of(server.health)},
        "require_key": {flags_before.get("require_key")},
        "log_format": {flags_before.get("log_format")},
        "show_content": {server.health.shows_content},
        "hosts": {flags_before.get("hosts")},
        "replicas": {flags_before.get("replicas")},
        "hostfile": {flags_before.get("hostfile")},
        "workers": {flags_before.get("workers")},
    }
    given = flags.given().items()
    ignored: dict[str, Any] = {name: value for name, value in given if value not in actual[name]}
    if ignored:
        flags = Flags(**ignored)
        options = shlex.join(flags.as_arguments())
        output.warning(f"{options} has no effect on a running server. Restart it with:")
        output.note(f"  {restart_command(server.record, flags)}")
