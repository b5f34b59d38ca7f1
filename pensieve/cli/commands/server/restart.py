"""`pensieve restart`: restarts the server with the same flags, unless others are given."""

from dataclasses import asdict
from typing import Any

from pensieve.cli.lifecycle.launching import default_dependencies, run_in_background
from pensieve.cli.lifecycle.server_report import interruption_note
from pensieve.cli.lifecycle.start_options import (
    ComputeDevice,
    Host,
    IdleUnload,
    Model,
    Port,
    Speculation,
)
from pensieve.cli.lifecycle.version_mismatch import restart_command
from pensieve.cli.ui import output
from pensieve.daemon.server_record import ServerRecord, current
from pensieve.daemon.stop import stop
from pensieve.errors import MachineError
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Flags


def restart(  # noqa: PLR0913 -- each is an option
    *,
    force: bool = False,
    no_wait: bool = False,
    port: Port = None,
    host: Host = None,
    model: Model = None,
    device: ComputeDevice = None,
    idle_unload: IdleUnload = None,
    speculation: Speculation = None,
) -> int:
    """Restart the server, or start it if none runs.

    For example:
      pensieve restart
      pensieve restart --model smollm2-135m

    Flags of the running server are reused; variables and the configuration file
    are read again.

    Parameters
    ----------
    force
        Do not wait for open answers; abort them.
    no_wait
        Return without waiting until the server answers.
    """
    given = Flags(
        model=model,
        device=device,
        host=host,
        port=port,
        idle_unload=idle_unload,
        speculation=speculation,
    )
    record = current(settings_module.resolve_paths())
    flags = merge_flags(record, given)
    # Resolved before the stop: an invalid setting must not leave nothing running.
    settings = settings_module.resolve(flags)
    settings_module.require_own_key(settings)
    dependencies = default_dependencies()
    dependencies.check(settings.model, settings.paths)
    if record and record.service:
        raise MachineError(
            "Homebrew manages this server; pensieve does not restart it.",
            hint=f"Restart it with:\n  {restart_command(record)}",
        )
    with interruption_note("The server stops after its open answers. Then: pensieve start"):
        stopped = stop(settings.paths, is_forced=force)
    if stopped:
        output.hint(f"pensieve has stopped (pid {stopped.pid}).")
    return run_in_background(settings, flags, dependencies, is_awaited=not no_wait)


def merge_flags(record: ServerRecord | None, given: Flags) -> Flags:
    """Return the running server's flags, overridden by those given now."""
    merged: dict[str, Any] = {**(record.flags if record else {}), **given.given()}
    return Flags(**{name: merged.get(name) for name in asdict(given)})
