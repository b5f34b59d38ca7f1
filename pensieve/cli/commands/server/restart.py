"""`pensieve restart`: stop, then start with what the server had on its command line, unless another is given."""

from dataclasses import asdict
from typing import Any

from pensieve.cli.lifecycle.launching import default_dependencies, run_in_background
from pensieve.cli.lifecycle.server_report import interruption_told
from pensieve.cli.lifecycle.start_options import ComputeDevice, Host, IdleUnload, Model, Port
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
) -> int:
    """Stop the server and start it again; where none runs, start one.

    For example:
      pensieve restart
      pensieve restart --model smollm2-135m

    What it was started with on the command line is kept; variables and the
    configuration file are read anew.

    Parameters
    ----------
    force
        Do not wait for open answers: they are cut off.
    no_wait
        Do not wait until it answers.
    """
    given = Flags(model=model, device=device, host=host, port=port, idle_unload=idle_unload)
    record = current(settings_module.resolve_paths())
    flags = kept(record, given)
    # Read before anything is stopped: what is wrong in them would leave nothing running.
    settings = settings_module.resolve(flags)
    settings_module.require_own_key(settings)
    parts = default_dependencies()
    parts.check(settings.model, settings.paths)
    if record and record.service:
        raise MachineError(
            "Homebrew keeps this server; pensieve does not start it.",
            hint=f"Start it anew with:\n  {restart_command(record)}",
        )
    with interruption_told("The server ends once open answers have; then: pensieve start"):
        ended = stop(settings.paths, is_forced=force)
    if ended:
        output.hint(f"pensieve has stopped (pid {ended.pid}).")
    return run_in_background(settings, flags, parts, is_awaited=not no_wait)


def kept(record: ServerRecord | None, given: Flags) -> Flags:
    """The flags of the server that runs, under those that are given now."""
    both: dict[str, Any] = {**(record.flags if record else {}), **given.given()}
    return Flags(**{name: both.get(name) for name in asdict(given)})
