"""A server for one run, with the user's settings, but its own folder, port and key."""

import secrets
import shlex
import shutil
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from pensieve.bench.http_server import HttpServed
from pensieve.daemon import server_lock
from pensieve.daemon.launch import launch, server_command
from pensieve.daemon.private_dirs import make_private
from pensieve.daemon.stop import stop
from pensieve.errors import MachineError
from pensieve.paths import under_home
from pensieve.settings.resolve import Device, Flags, Settings, SpeculationMode, variables_set
from pensieve.settings.spec import KEYS, as_typed

# If this process is killed, the server that it leaves gives its memory back.
IDLE_UNLOAD_MIN = 5.0


@dataclass(frozen=True, slots=True)
class OwnServer:
    settings: Settings
    model: Path  # the folder
    device: Device
    home: Path
    command: Callable[[Flags], Sequence[str]] = server_command
    show: Callable[[str], None] = lambda _: None
    # One for all starts: another key would not find the prefixes on disk.
    key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    @contextmanager
    def folder(self) -> Generator[None]:
        """Keep the server's folder while in the block; then end the server and delete the folder.

        SIGTERM and SIGHUP leave the block. Raises `MachineError` if another run has the folder.
        """
        paths = under_home(self.home)
        if server_lock.is_held(paths):
            raise MachineError(
                "Another `pensieve bench` runs, or one was killed and its server still runs.",
                hint="End that server:\n"
                f"  PENSIEVE_HOME={shlex.quote(str(self.home))} pensieve stop --force",
            )
        shutil.rmtree(self.home, ignore_errors=True)
        make_private(self.home)
        try:
            with _signals_raise():
                yield
        finally:
            stop(paths, is_forced=True)
            shutil.rmtree(self.home, ignore_errors=True)

    def start(self, speculation: SpeculationMode) -> HttpServed:
        """Return a server that answers, after the end of the one before.

        That one writes its prefixes to disk first, where the new one finds them.
        """
        paths = under_home(self.home)
        self.show("stopping the server")
        stop(paths, is_forced=False)
        self.show("starting a server")
        with variables_set(self._variables()):
            running = launch(self.command(self._flags(speculation)), paths, show=self.show)
        return HttpServed(running.record, self.key)

    def _flags(self, speculation: SpeculationMode) -> Flags:
        return Flags(
            model=str(self.model),
            device=self.device,
            host="127.0.0.1",
            port=_free_port(),
            idle_unload=IDLE_UNLOAD_MIN,
            speculation=speculation,
        )

    def _variables(self) -> dict[str, str]:
        """Return the user's settings as variables: the server reads another configuration file."""
        own = {
            KEYS[name].variable: as_typed(getattr(self.settings, name))
            for name in self.settings.origins
        }
        return own | {"PENSIEVE_HOME": str(self.home), "PENSIEVE_API_KEY": self.key}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def _signals_raise() -> Generator[None]:
    """Make SIGTERM and a closed terminal unwind the block, so that the server does not stay."""

    def unwind(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {each: signal.signal(each, unwind) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
