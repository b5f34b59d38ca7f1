"""Start a server, or find the one that runs: used by `start`, `restart` and `claude`."""

import signal
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING

from pensieve import logs
from pensieve.cli.lifecycle.model_suggestion import suggestion
from pensieve.cli.lifecycle.server_report import interruption_told, report, report_held
from pensieve.cli.ui import output, progress
from pensieve.daemon import server_lock
from pensieve.daemon.bind import bind_with_retry, both_loopbacks
from pensieve.daemon.launch import (
    RunningServer,
    launch,
    launch_and_leave,
    server_command,
    wait_for_other,
)
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.errors import PortInUseError
from pensieve.machine import Machine, choose_device, inspect
from pensieve.paths import Paths
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Device, Flags, Settings
from pensieve.sleep_blocker import awake, awake_command

if TYPE_CHECKING:
    from pensieve.models.folder.snapshot import ModelFolder


DEVICE_NAMES = {"gpu": "GPU", "cpu": "CPU"}


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What `start` puts together; tests hand in others."""

    inspect: Callable[[], Machine]
    fetch: "Callable[[str, Paths], ModelFolder]"
    serve: "Callable[[Settings, ModelFolder, Device, socket.socket], None]"
    server_command: Callable[[Flags], Sequence[str]]
    check: Callable[[str, Paths], None]
    is_watched: Callable[[], bool] = output.is_watched


def run_in_background(
    settings: Settings, flags: Flags, parts: Dependencies, *, is_awaited: bool = True
) -> int:
    """Leave a server that answers, this one or the one that runs already; not awaited, one that will."""
    if is_awaited:
        found = answering(settings, flags, parts)
        report(found, flags)
        if found.is_new:
            _suggest(settings, parts)
        return 0
    if server_lock.is_held(settings.paths):
        return report_held(settings)
    choose_device(settings.device, parts.inspect())
    if not _can_listen(settings):
        return report_held(settings)
    parts.check(settings.model, settings.paths)
    pid = launch_and_leave(parts.server_command(flags), settings.paths)
    output.data(f"pensieve is starting (pid {pid}). See how far it is:\n  pensieve status")
    _suggest(settings, parts)
    return 0


def _suggest(settings: Settings, parts: Dependencies) -> None:
    """Name a better model to who has chosen none, and looks."""
    if settings.origins.get("model") or not parts.is_watched():
        return
    if words := suggestion(settings, parts.inspect()):
        output.note(f"\n{words}")


def answering(settings: Settings, flags: Flags, parts: Dependencies) -> RunningServer:
    """A server that answers, started if need be. Says nothing on standard output."""
    if server_lock.is_held(settings.paths):
        with (
            interruption_told("The server goes on without this; see it with: pensieve status"),
            progress.waiting("Waiting for the server that runs") as show,
        ):
            found = wait_for_other(settings.paths, show=show)
        if found:
            return found
    device = choose_device(settings.device, parts.inspect())
    if not _can_listen(settings):
        return answering(settings, flags, parts)
    folder = _fetched(settings, parts)
    with (
        interruption_told("Nothing runs; to start again: pensieve start"),
        progress.waiting(f"Loading {folder.name} on the {DEVICE_NAMES[device]}") as show,
    ):
        return launch(parts.server_command(flags), settings.paths, show=show)


def _fetched(settings: Settings, parts: Dependencies) -> "ModelFolder":
    with awake(awake_command(is_wanted=settings.keep_awake)):
        return parts.fetch(settings.model, settings.paths)


def _can_listen(settings: Settings) -> bool:
    """Looked at before a long download rather than after it; False where another start was quicker, just now."""
    try:
        bind_with_retry(settings.host, settings.port).close()
    except PortInUseError:
        if not server_lock.is_held(settings.paths):
            raise
        return False
    return True


def run_in_foreground(settings: Settings, flags: Flags, parts: Dependencies) -> int:
    """Be the server until SIGTERM or Ctrl-C; nothing of it stays behind."""
    device = choose_device(settings.device, parts.inspect())
    logs.set_up(is_debug=settings.is_debug)
    with _termination_raised(), server_lock.acquire(settings.paths) as is_ours:
        if not is_ours:
            return report_held(settings)
        bind_with_retry(settings.host, settings.port).close()
        address = Address(settings.host, settings.port, settings.model, device)
        record = own_record(
            address, service=settings_module.homebrew_service(), flags=flags.given()
        )
        with publish(settings.paths, replace(record, phase="fetching")):
            folder = _fetched(settings, parts)
            with (
                bind_with_retry(settings.host, settings.port) as listener,
                publish(settings.paths, replace(record, model=folder.name)),
            ):
                output.note(f"pensieve serves {folder.name} at {record.base_url}; Ctrl-C ends it.")
                parts.serve(settings, folder, device, listener)
    return 0


def default_dependencies() -> Dependencies:
    """The parts that a user gets. What is heavy is imported when it is used."""
    return Dependencies(inspect, _fetch, _serve_http, server_command, _check)


def _fetch(name: str, paths: Paths) -> "ModelFolder":
    from pensieve.models.catalog.find import find
    from pensieve.models.fetching.fetch import fetch

    shown = progress.for_terminal()
    with interruption_told("Nothing runs; to go on: pensieve start"):
        try:
            return fetch(find(name), paths, shown)
        finally:
            shown.end()


def _check(name: str, paths: Paths) -> None:
    """Raise what `_fetch` would raise without the network."""
    from pensieve.models.catalog.find import find
    from pensieve.models.fetching.fetch import check_here

    check_here(find(name), paths)


def _serve_http(
    settings: Settings, folder: "ModelFolder", device: Device, listener: socket.socket
) -> None:
    from pensieve.server.run import run

    with both_loopbacks(listener) as listeners:
        run(settings, folder, device, listeners)


class _Terminated(SystemExit):
    """SIGTERM came. Of a kind that asyncio lets through, wherever in its loop it comes."""


@contextmanager
def _termination_raised() -> Generator[None]:
    """SIGTERM unwinds the `with` blocks, as Ctrl-C does, instead of ending the process where it stands.

    uvicorn sends itself the signal that ended it once more when all is done.
    """

    def unwind(_signal: int, _frame: FrameType | None) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, unwind)
    try:
        with suppress(_Terminated):
            yield
    finally:
        signal.signal(signal.SIGTERM, previous)
