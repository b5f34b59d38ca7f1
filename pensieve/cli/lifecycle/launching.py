"""Starts a server or finds the running one, for `start`, `restart` and `claude`."""

import shlex
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from pensieve import logs
from pensieve.cli.lifecycle.model_suggestion import suggestion
from pensieve.cli.lifecycle.server_report import interruption_note, report, report_already_running
from pensieve.cli.lifecycle.start_checks import certificate_of
from pensieve.cli.lifecycle.status_facts import SHOWS_CONTENT
from pensieve.cli.ui import output, progress
from pensieve.daemon import server_lock
from pensieve.daemon.bind import bind_with_retry, both_loopbacks
from pensieve.daemon.launch import (
    RunningServer,
    launch,
    launch_detached,
    server_command,
    wait_for_other,
)
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.errors import PortInUseError
from pensieve.machine import Machine, choose_device, inspect
from pensieve.paths import Paths
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import LOCAL, Device, Flags, Settings
from pensieve.sleep_blocker import awake, awake_command

if TYPE_CHECKING:
    from pensieve.models.folder.snapshot import ModelFolder


DEVICE_NAMES = {"gpu": "GPU", "cpu": "CPU"}


# What `start` is built from; tests replace it.
@dataclass(frozen=True, slots=True)
class Dependencies:
    inspect: Callable[[], Machine]
    fetch: "Callable[[str, Paths], ModelFolder]"
    serve: "Callable[[Settings, ModelFolder, Device, socket.socket], None]"
    server_command: Callable[[Flags], Sequence[str]]
    check: Callable[[str, Paths], None]
    is_interactive: Callable[[], bool] = output.is_interactive


def run_in_background(
    settings: Settings, flags: Flags, dependencies: Dependencies, *, is_awaited: bool = True
) -> int:
    """Start a server, or find the running one.

    Returns once it answers; with is_awaited False, once the process is launched.
    """
    if is_awaited:
        server = ensure_running(settings, flags, dependencies)
        if flags.model and not server.is_new:
            dependencies.check(flags.model, settings.paths)
        report(server, flags)
        if server.is_new:
            _suggest(settings, dependencies)
        return 0
    if server_lock.is_held(settings.paths):
        return report_already_running(settings)
    device_of(settings, dependencies)
    if not _can_listen(settings):
        return report_already_running(settings)
    dependencies.check(settings.model, settings.paths)
    pid = launch_detached(dependencies.server_command(flags), settings.paths)
    output.data(f"pensieve is starting (pid {pid}). Show its progress:\n  pensieve status")
    _suggest(settings, dependencies)
    return 0


def _suggest(settings: Settings, dependencies: Dependencies) -> None:
    """Name a better model on a terminal if the model is the default one."""
    if settings.origins.get("model") or not dependencies.is_interactive():
        return
    if text := suggestion(settings, dependencies.inspect()):
        output.note(f"\n{text}")


def ensure_running(settings: Settings, flags: Flags, dependencies: Dependencies) -> RunningServer:
    """Return a server that answers, started if needed. Prints nothing on standard output."""
    if server_lock.is_held(settings.paths):
        with (
            interruption_note("The server keeps running. Show it with: pensieve status"),
            progress.waiting("Waiting for the running server") as show,
        ):
            server = wait_for_other(settings.paths, show=show)
        if server:
            return server
    device = device_of(settings, dependencies)
    if not _can_listen(settings):
        return ensure_running(settings, flags, dependencies)
    folder = fetch_model(settings, dependencies, _resume(start_command(flags)))
    check_engines(settings, folder, dependencies)
    place = settings.hosts or f"the {DEVICE_NAMES[device]}"
    with (
        interruption_note(f"No server is running. Start it again with: {start_command(flags)}"),
        progress.waiting(f"Loading {folder.name} on {place}") as show,
    ):
        return launch(dependencies.server_command(flags), settings.paths, show=show)


def device_of(settings: Settings, dependencies: Dependencies) -> Device:
    """Return what the engine computes on; another machine chooses by itself.

    Raises `UnsupportedPlatformError`.
    """
    if settings.remote_hosts and LOCAL not in settings.remote_hosts:
        return "gpu"
    return choose_device(settings.device, dependencies.inspect())


def check_engines(settings: Settings, folder: "ModelFolder", dependencies: Dependencies) -> None:
    """Raise `MachineError` or `HostError` if the model cannot run where the settings want it."""
    if settings.hosts:
        _check_hosts(settings, folder, dependencies)
    if settings.workers > 1:
        _check_workers(settings, folder, dependencies)


def _check_workers(settings: Settings, folder: "ModelFolder", dependencies: Dependencies) -> None:
    """Raise `MachineError` if the model fits one worker, but not each of them."""
    from pensieve.models.catalog.expected_model import require_room_for_workers

    require_room_for_workers(folder.folder, settings, dependencies.inspect())


def _check_hosts(settings: Settings, folder: "ModelFolder", dependencies: Dependencies) -> None:
    """Print what each machine is. Raises `HostError` if the model cannot run on one."""
    from pensieve.hosts.check import examined
    from pensieve.hosts.group import require_group, require_shareable

    if settings.hostfile:
        require_shareable(settings, folder.folder)
    reports = examined(settings.other_hosts, settings, folder)
    for found in reports:
        found.require()
        output.note(found.line)
    if settings.hostfile:
        output.note(require_group(settings, folder.folder, dependencies.inspect(), reports))


def with_hosts(settings: Settings, flags: Flags) -> tuple[Settings, Flags]:
    """Return both with the hosts of the hostfile, if there is one. Raises `SettingsError`."""
    if not settings.hostfile:
        return settings, flags
    from pensieve.hosts.ranks import hosts_of

    file = Path(settings.hostfile).expanduser().absolute()
    _, *others = (host.ssh for host in hosts_of(file).hosts)
    hosts = ",".join([LOCAL, *others])
    changes: dict[str, str] = {"hosts": hosts, "hostfile": str(file)}
    return replace(settings, **changes), replace(flags, **changes)


def fetch_model(settings: Settings, dependencies: Dependencies, on_interrupt: str) -> "ModelFolder":
    """Return the model, downloaded if it is missing. `on_interrupt`: printed at Ctrl-C."""
    with awake(awake_command(is_enabled=settings.keep_awake)), interruption_note(on_interrupt):
        return dependencies.fetch(settings.model, settings.paths)


def start_command(flags: Flags, *options: str) -> str:
    """Return the command that a person types to start a server with these flags."""
    return shlex.join(["pensieve", "start", *options, *flags.as_arguments()])


def _resume(command: str) -> str:
    return f"No server is running. Resume with: {command}"


def _can_listen(settings: Settings) -> bool:
    """Check the port before a long download. False if another start has just won the race."""
    try:
        bind_with_retry(settings.host, settings.port).close()
    except PortInUseError:
        if not server_lock.is_held(settings.paths):
            raise
        return False
    return True


def run_in_foreground(settings: Settings, flags: Flags, dependencies: Dependencies) -> int:
    """Run the server in this process until SIGTERM or Ctrl-C; clean up on both."""
    device = device_of(settings, dependencies)
    logs.set_up(is_debug=settings.is_debug, is_json=settings.log_format == "json")
    with _sigterm_raises(), server_lock.acquire(settings.paths) as is_ours:
        if not is_ours:
            return report_already_running(settings)
        bind_with_retry(settings.host, settings.port).close()
        address = Address(settings.host, settings.port, settings.model, device)
        record = own_record(
            address,
            service=settings_module.homebrew_service(),
            flags=flags.given(),
            certificate=certificate_of(settings),
        )
        with publish(settings.paths, replace(record, phase="fetching")):
            resume = _resume(start_command(flags, "--foreground"))
            folder = fetch_model(settings, dependencies, resume)
            with (
                bind_with_retry(settings.host, settings.port) as listener,
                publish(settings.paths, replace(record, model=folder.name)),
            ):
                output.note(f"pensieve serves {folder.name} at {record.base_url}; Ctrl-C stops it.")
                if settings.show_content:
                    output.warning(f"{SHOWS_CONTENT} (show_content).")
                dependencies.serve(settings, folder, device, listener)
    return 0


def default_dependencies() -> Dependencies:
    # Heavy modules are imported by the functions that use them.
    return Dependencies(inspect, _fetch, _serve_http, server_command, _check)


def _fetch(name: str, paths: Paths) -> "ModelFolder":
    from pensieve.models.catalog.find import find
    from pensieve.models.fetching.fetch import fetch

    progress_view = progress.for_terminal()
    try:
        return fetch(find(name), paths, progress_view)
    finally:
        progress_view.end()


def _check(name: str, paths: Paths) -> None:
    """Raise what `_fetch` would raise without the network."""
    from pensieve.models.catalog.find import find
    from pensieve.models.fetching.fetch import check_here

    check_here(find(name), paths)


def _serve_http(
    settings: Settings, folder: "ModelFolder", device: Device, listener: socket.socket
) -> None:
    from pensieve.server.run import run

    def find() -> list[dict[str, str]]:
        from pensieve.doctor.own_findings import own_findings

        return own_findings(settings)

    with both_loopbacks(listener) as listeners:
        run(settings, folder, device, listeners, find)


class _Terminated(SystemExit):
    """SIGTERM arrived. A `SystemExit`, because asyncio lets it through from any callback."""


@contextmanager
def _sigterm_raises() -> Generator[None]:
    """Make SIGTERM unwind the `with` blocks, as Ctrl-C does, instead of ending the process.

    uvicorn raises the signal that stopped it again once it is done.
    """

    def unwind(_signal: int, _frame: FrameType | None) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, unwind)
    try:
        with suppress(_Terminated):
            yield
    finally:
        signal.signal(signal.SIGTERM, previous)
