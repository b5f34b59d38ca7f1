"""`pensieve restart`: restarts the server with the same flags, unless others are given.

Whatever can prevent the new start is checked before the running server is stopped.
"""

import os
import shlex
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from pensieve.cli.lifecycle.launching import (
    Dependencies,
    check_engines,
    default_dependencies,
    device_of,
    fetch_model,
    run_in_background,
    start_command,
    with_hosts,
)
from pensieve.cli.lifecycle.server_report import interruption_note
from pensieve.cli.lifecycle.start_checks import check_access
from pensieve.cli.lifecycle.start_options import (
    ComputeDevice,
    Host,
    HostfileOption,
    Hosts,
    IdleUnload,
    LogFormatOption,
    Model,
    Port,
    Replicas,
    RequireKey,
    ShowContent,
    Speculation,
    Workers,
)
from pensieve.cli.ui import output
from pensieve.daemon.bind import bind_with_retry, check_host, find_owner
from pensieve.daemon.health_client import ask
from pensieve.daemon.launch import flags_of
from pensieve.daemon.processes import command_of
from pensieve.daemon.server_record import ServerRecord, require, restart_command
from pensieve.daemon.stop import stop
from pensieve.errors import MachineError, PensieveError, PortInUseError, RecordUnreadableError
from pensieve.paths import Paths
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Flags, Settings


@dataclass(frozen=True, slots=True)
class PreviousServer:
    pid: int | None  # None: unknown
    flags: Mapping[str, str | float]
    record: ServerRecord | None  # None: missing or damaged


def restart(  # noqa: PLR0913 -- each is an option
    *,
    force: bool = False,
    no_wait: bool = False,
    rolling: bool = False,
    port: Port = None,
    host: Host = None,
    model: Model = None,
    device: ComputeDevice = None,
    idle_unload: IdleUnload = None,
    speculation: Speculation = None,
    require_key: RequireKey = None,
    log_format: LogFormatOption = None,
    show_content: ShowContent = None,
    hosts: Hosts = None,
    replicas: Replicas = None,
    hostfile: HostfileOption = None,
    workers: Workers = None,
) -> int:
    """Restart the server, or start it if none runs.

    For example:
      pensieve restart
      pensieve restart --model smollm2-135m

    Flags of the running server are reused; variables and the configuration file
    are read again. The server stops only if the new one can start: a missing
    model is downloaded before.

    Parameters
    ----------
    force
        Do not wait for open answers; abort them.
    no_wait
        Return without waiting until the server answers.
    rolling
        Restart several engines one after another; the server keeps answering.
    """
    if rolling:
        return _restart_engines(settings_module.resolve().paths)
    given = Flags(
        model=model,
        device=device,
        host=host,
        port=port,
        idle_unload=idle_unload,
        speculation=speculation,
        require_key=require_key,
        log_format=log_format,
        show_content=show_content,
        hosts=hosts,
        replicas=replicas,
        hostfile=hostfile,
        workers=workers,
    )
    return restart_server(given, default_dependencies(), is_forced=force, is_awaited=not no_wait)


def _restart_engines(paths: Paths) -> int:
    """Have the running server restart its engines. Raises `MachineError` if it has only one."""
    record = require(paths)
    names = [each.name for each in ask(record).replicas] if record else []
    if record is None or not names:
        raise MachineError(
            "No server with several engines runs.", hint="Restart a server:\n  pensieve restart"
        )
    os.kill(record.pid, signal.SIGUSR1)  # engine/client/replicas.py takes it
    output.data(
        f"{', '.join(names)} restart one after another, each after its open answers."
        "\nShow it with:\n  pensieve status"
    )
    return 0


def restart_server(
    given: Flags, dependencies: Dependencies, *, is_forced: bool = False, is_awaited: bool = True
) -> int:
    running = _find_running(settings_module.resolve_paths())
    flags = merge_flags(running.flags if running else {}, given)
    with _stays_running(running):
        settings, flags = with_hosts(settings_module.resolve(flags), flags)
        check_access(settings)
        settings_module.require_one_plan(settings)
        if running:
            _check_start(settings, dependencies, running)
    with interruption_note(
        f"The server stops after its open answers. Then: {start_command(flags)}"
    ):
        stopped = stop(settings.paths, is_forced=is_forced)
    if stopped:
        output.hint(f"pensieve has stopped (pid {stopped.pid}).")
    return run_in_background(settings, flags, dependencies, is_awaited=is_awaited)


def merge_flags(running: Mapping[str, str | float], given: Flags) -> Flags:
    """Return the running server's flags, overridden by those given now."""
    merged: dict[str, Any] = {**running, **given.given()}
    return Flags(**{each.name: merged.get(each.name) for each in fields(Flags)})


def _find_running(paths: Paths) -> PreviousServer | None:
    """Return the server with its flags: from its record, else from its command line."""
    try:
        record = require(paths)
    except RecordUnreadableError as error:
        command = command_of(error.pid) if error.pid else []
        flags = flags_of(command)
        output.warning(_description(error, flags, is_known=bool(command)))
        return PreviousServer(error.pid, flags.given(), None)
    return PreviousServer(record.pid, record.flags, record) if record else None


def _description(error: RecordUnreadableError, flags: Flags, *, is_known: bool) -> str:
    options = shlex.join(flags.as_arguments()) or "none"
    return f"{error.message}\n" + (
        f"Options on its command line, which the restart uses: {options}"
        if is_known
        else "The options that it was started with are lost: the restart uses those given now, the"
        " variables and the configuration file."
    )


@contextmanager
def _stays_running(running: PreviousServer | None) -> Generator[None]:
    """Add to an error of the block that the server still runs, so that its fix is a restart."""
    try:
        yield
    except PensieveError as error:
        if running:
            hint = (error.hint or "").replace("pensieve start", "pensieve restart")
            process = f" (pid {running.pid})" if running.pid else ""
            error.hint = f"{hint}\nThe running server{process} was not stopped.".lstrip()
        raise


def _check_start(settings: Settings, dependencies: Dependencies, running: PreviousServer) -> None:
    """Raise what the start would raise, and download a missing model."""
    record = running.record
    if record and record.service:
        raise MachineError(
            "Homebrew manages this server; pensieve does not restart it.",
            hint=f"Restart it with:\n  {restart_command(record)}",
        )
    dependencies.check(settings.model, settings.paths)
    device_of(settings, dependencies)
    if record is None or (record.host, record.port) != (settings.host, settings.port):
        _check_address(settings, running)
    # A server that still downloads may have this model's lock, and answers nothing yet.
    if record is None or record.phase == "serving":
        folder = fetch_model(settings, dependencies, "The running server was not stopped.")
        check_engines(settings, folder, dependencies)


def _check_address(settings: Settings, running: PreviousServer) -> None:
    """Raise if the start cannot listen there. The running server's own port counts as free."""
    check_host(settings.host)
    try:
        bind_with_retry(settings.host, settings.port).close()
    except PortInUseError:
        owner = find_owner(settings.port)
        if owner is None or owner.pid != running.pid:
            raise
