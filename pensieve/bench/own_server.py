"""A server for one run, with the user's settings, but its own folder, port and key."""

import secrets
import shutil
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
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
    show: Callable[[str], None] = lambda _: None

    @contextmanager
    def folder(self) -> Generator[None]:
        """Keep the server's folder while in the block. SIGTERM and SIGHUP leave the block.

        Raises `MachineError` if another run has it.
        """
        if server_lock.is_held(under_home(self.home)):
            raise MachineError(
                "Another `pensieve bench` runs, or one was killed and its server still runs.",
                hint=f"End that server:\n  PENSIEVE_HOME='{self.home}' pensieve stop --force",
            )
        shutil.rmtree(self.home, ignore_errors=True)
        make_private(self.home)
        try:
            with _signals_raise():
                yield
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    @contextmanager
    def started(self, speculation: SpeculationMode) -> Generator[HttpServed]:
        """Yield a server that answers; end it after the block. It keeps its prefixes on disk."""
        paths = under_home(self.home)
        key = secrets.token_hex(32)
        with variables_set(self._variables(key)):
            command = server_command(self._flags(speculation))
            running = launch(command, paths, show=self.show)
        try:
            yield HttpServed(running.record, key)
        finally:
            self.show("stopping the server")
            stop(paths, is_forced=False)

    def _flags(self, speculation: SpeculationMode) -> Flags:
        return Flags(
            model=str(self.model),
            device=self.device,
            host="127.0.0.1",
            port=_free_port(),
            idle_unload=IDLE_UNLOAD_MIN,
            speculation=speculation,
        )

    def _variables(self, key: str) -> dict[str, str]:
        """Return the user's settings as variables: the server reads another configuration file."""
        own = {
            KEYS[name].variable: as_typed(getattr(self.settings, name))
            for name in self.settings.origins
        }
        return own | {"PENSIEVE_HOME": str(self.home), "PENSIEVE_API_KEY": key}


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
