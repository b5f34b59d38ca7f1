"""What `start`, `restart` and `stop` say of a server: that answers, that was there before, or that is left as it is by Ctrl-C."""

from collections.abc import Generator
from contextlib import contextmanager

from pensieve.cli.lifecycle.status_facts import facts, table
from pensieve.cli.lifecycle.version_mismatch import restart_command, warn_of_other_version
from pensieve.cli.ui import output
from pensieve.cli.ui.shells import shell_of, usage
from pensieve.daemon.launch import RunningServer
from pensieve.daemon.server_record import current
from pensieve.errors import StartFailedError
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Flags, Settings


def report(found: RunningServer, flags: Flags) -> int:
    """Where it is, what it serves, what to type next. Raises `StartFailedError` where it is not well."""
    record, health = found.record, found.health
    require_well(found)
    where = f"(pid {record.pid}, {record.base_url})"
    output.data(f"pensieve {'is running' if found.is_new else 'runs already'} {where}.")
    warn_of_other_version(record, health)
    shown = facts(record, health, record.started_at)
    output.data(table({f"  {name}": shown[name] for name in ("model", "context", "device")}))
    if not found.is_new:
        _note_differences(found, flags)
    output.data("\nNext:")
    output.data('  pensieve chat "Why is the sky blue?"')
    output.data("  pensieve claude             # Claude Code on this model")
    output.data(f"  {usage(shell_of(settings_module.shell_path()))}    # for any other client")
    return 0


def require_well(found: RunningServer) -> None:
    """Raise `StartFailedError` where a server that was there before answers no requests."""
    record, health = found.record, found.health
    if health.is_well:
        return
    state = "its engine has failed" if health.status == "failed" else f"it is {health.status}"
    why = f": {health.detail}" if health.detail else "."
    raise StartFailedError(
        f"pensieve runs already (pid {record.pid}, {record.base_url}), but {state}{why}",
        hint=f"Start it anew:\n  {restart_command(record)}",
    )


def report_held(settings: Settings) -> int:
    """A server runs, or starts: it is known by its record, if it has written that yet."""
    record = current(settings.paths)
    if record is None or record.phase == "fetching":
        output.note("pensieve runs already; it is just starting.")
    else:
        output.note(f"pensieve runs already (pid {record.pid}, {record.base_url}).")
    return 0


@contextmanager
def interruption_told(what_is_left: str) -> Generator[None]:
    """Where Ctrl-C ends the block, a line says what runs now and what does not."""
    try:
        yield
    except KeyboardInterrupt:
        output.note(f"Interrupted. {what_is_left}")
        raise


def _note_differences(found: RunningServer, flags: Flags) -> None:
    runs = {
        "model": {found.record.model, found.health.repo},
        "device": {found.record.device},
        "host": {found.record.host},
        "port": {found.record.port},
        "idle_unload": {found.health.idle_unload},
    }
    other = {name: value for name, value in flags.given().items() if value not in runs[name]}
    if other:
        named = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in other.items())
        output.warning(f"{named} has no effect on it. To start it anew with it:")
        output.note(f"  pensieve restart {named}")
