"""`pensieve start`: checks the machine, gets the model, starts the server, waits until it answers.

In the background it starts itself once more with `--foreground`; there the lock is taken, the port bound, the record
written, and the rest is the server's.
"""

import signal
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from pensieve import logs
from pensieve import settings as settings_module
from pensieve.cli import output, progress
from pensieve.cli.shells import shell_of, usage
from pensieve.cli.status import facts, table
from pensieve.daemon import lock
from pensieve.daemon.background import Answering, launch, server_command, wait_for_other
from pensieve.daemon.listen import bind
from pensieve.daemon.record import Address, current, published
from pensieve.errors import StartFailedError
from pensieve.machine import Machine, choose_device, inspect
from pensieve.paths import Paths
from pensieve.settings import Device, Flags, Settings

if TYPE_CHECKING:
    from pensieve.models.folder import ModelFolder

TERMINATED = 143
DEVICE_NAMES = {"gpu": "GPU", "cpu": "CPU"}


@dataclass(frozen=True, slots=True)
class Parts:
    """What `start` puts together; tests hand in others."""

    inspect: Callable[[], Machine]
    fetch: "Callable[[str, Paths], ModelFolder]"
    serve: "Callable[[Settings, ModelFolder, Device, socket.socket], None]"
    server_command: Callable[[Settings, Device], Sequence[str]]


def start(
    *,
    foreground: bool = False,
    port: Annotated[int | None, Parameter(validator=Number(gte=1, lte=65535), metavar="N")] = None,
    host: Annotated[str | None, Parameter(metavar="ADDRESS")] = None,
    model: Annotated[str | None, Parameter(metavar="NAME")] = None,
    device: Annotated[Device | None, Parameter(metavar="gpu|cpu")] = None,
) -> int:
    """Start the server in the background and wait until it answers.

    For example:
      pensieve start
      pensieve start --model smollm2-135m --device cpu
      pensieve start --foreground --port 8080

    Parameters
    ----------
    foreground
        Stay in this terminal; Ctrl-C ends the server.
    port
        Port to listen on, 7777 unless given.
    host
        Address to listen on, 127.0.0.1 unless given. One that other machines can reach
        needs a key of your own in PENSIEVE_API_KEY.
    model
        A model by name (phi-3-mini, smollm2-135m), a Hugging Face repository
        (owner/name), or the folder of an mlx-lm model.
    device
        Where MLX computes. A Mac with Apple silicon uses its GPU without being asked.
    """
    flags = Flags(model=model, device=device, host=host, port=port)
    settings = settings_module.resolve(flags)
    settings_module.require_own_key(settings)
    run = run_in_foreground if foreground else run_in_background
    return run(settings, flags, real_parts())


def run_in_background(settings: Settings, flags: Flags, parts: Parts) -> int:
    """Leave a server that answers, this one or the one that runs already."""
    return _report(answering(settings, parts), flags)


def answering(settings: Settings, parts: Parts) -> Answering:
    """A server that answers, started if need be. Says nothing on standard output."""
    if lock.is_held(settings.paths) and (found := wait_for_other(settings.paths)):
        return found
    device = choose_device(settings.device, parts.inspect())
    # Before a long download rather than after it.
    bind(settings.host, settings.port).close()
    folder = parts.fetch(settings.model, settings.paths)
    output.aside(f"Loading {folder.name} on the {DEVICE_NAMES[device]} ...")
    return launch(parts.server_command(settings, device), settings.paths)


def run_in_foreground(settings: Settings, flags: Flags, parts: Parts) -> int:
    """Be the server until SIGTERM or Ctrl-C; nothing of it stays behind."""
    device = choose_device(settings.device, parts.inspect())
    logs.set_up(is_debug=settings.is_debug)
    if lock.is_held(settings.paths):
        return _report_held(settings, flags)
    with _termination_raised():
        folder = parts.fetch(settings.model, settings.paths)
        with lock.held(settings.paths) as is_ours:
            if not is_ours:
                return _report_held(settings, flags)
            return _serve(settings, folder, device, parts)


def real_parts() -> Parts:
    """The parts that a user gets. What is heavy is imported when it is used."""
    return Parts(inspect, _fetch, _serve_http, server_command)


def _fetch(name: str, paths: Paths) -> "ModelFolder":
    from pensieve.models.catalog import find
    from pensieve.models.fetch import fetch

    shown = progress.for_terminal()
    try:
        return fetch(find(name), paths, shown)
    finally:
        shown.end()


def _serve_http(
    settings: Settings, folder: "ModelFolder", device: Device, listener: socket.socket
) -> None:
    from pensieve.server.serve import serve

    serve(settings, folder, device, listener)


def _serve(settings: Settings, folder: "ModelFolder", device: Device, parts: Parts) -> int:
    with bind(settings.host, settings.port) as listener:
        address = Address(settings.host, settings.port, folder.name, device)
        with published(settings.paths, address) as record:
            output.note(f"pensieve serves {folder.name} at {record.base_url}; Ctrl-C ends it.")
            # uvicorn sends itself the signal that ended it once more when all is done.
            with suppress(_Terminated):
                parts.serve(settings, folder, device, listener)
    return 0


class _Terminated(SystemExit):
    """SIGTERM came."""


@contextmanager
def _termination_raised() -> Generator[None]:
    """SIGTERM unwinds the `with` blocks, as Ctrl-C does, instead of ending the process where it stands."""

    def unwind(_signal: int, _frame: FrameType | None) -> None:
        raise _Terminated(TERMINATED)

    previous = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _report(found: Answering, flags: Flags) -> int:
    record, health = found.record, found.health
    if health.status != "ready":
        raise StartFailedError(
            f"pensieve runs already (pid {record.pid}, {record.base_url}), but it is {health.status}: "
            f"{health.detail}",
            hint="Start it anew:\n  pensieve stop && pensieve start",
        )
    where = f"(pid {record.pid}, {record.base_url})"
    output.data(f"pensieve {'is running' if found.is_new else 'runs already'} {where}.")
    shown = facts(record, health, record.started_at)
    output.data(table({f"  {name}": shown[name] for name in ("model", "context", "device")}))
    if not found.is_new:
        _note_differences(found, flags)
    output.data("\nNext:")
    output.data('  pensieve chat "Why is the sky blue?"')
    output.data(
        f"  {usage(shell_of(settings_module.shell_path()))}    # for Claude Code and other clients"
    )
    return 0


def _report_held(settings: Settings, flags: Flags) -> int:
    """Another start was quicker: it is known by its record, if it has written that yet."""
    record = current(settings.paths)
    output.note(
        f"pensieve runs already (pid {record.pid}, {record.base_url})."
        if record
        else "pensieve runs already; it is just starting."
    )
    return 0


def _note_differences(found: Answering, flags: Flags) -> None:
    asked = {"model": flags.model, "device": flags.device, "host": flags.host, "port": flags.port}
    runs = {
        "model": {found.record.model, found.health.repo},
        "device": {found.record.device},
        "host": {found.record.host},
        "port": {found.record.port},
    }
    other = [name for name, value in asked.items() if value is not None and value not in runs[name]]
    if other:
        flags_named = ", ".join(f"--{name}" for name in other)
        output.warning(f"{flags_named} had no effect. To start with it: pensieve stop, then start.")
