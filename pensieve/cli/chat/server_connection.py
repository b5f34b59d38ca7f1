"""Finds the server for each question of a chat; waits while it loads, or starts it on request."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pensieve.cli.client.connection import Server
from pensieve.cli.client.server_identity import ServerInfo, identify
from pensieve.cli.client.target import find_target, require_servable, served_name
from pensieve.cli.ui import output
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import current, require, restart_command
from pensieve.errors import NoServerError, PensieveError, RequestError, ServerUnavailableError
from pensieve.isolation import python
from pensieve.settings.resolve import Flags, Settings

POLL_S = 0.2


# A server that has just answered, and the name of its model.
@dataclass(frozen=True, slots=True)
class ConnectedModel:
    server: Server
    model: str
    info: ServerInfo


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    settings: Settings
    is_interactive: bool  # a user sees progress and can answer questions
    ask_yes_no: Callable[[str], bool] = output.ask_yes_no
    start: Callable[[Sequence[str]], int] = lambda command: (
        subprocess.run(  # noqa: S603 -- our own interpreter
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
        ).returncode
    )
    pause: Callable[[], None] = lambda: time.sleep(POLL_S)


class ServerConnection:
    """Owns the last connection. model: the name that was requested, None for any."""

    def __init__(self, options: ConnectOptions, model: str | None) -> None:
        self._options = options
        self._model = model
        self._last: ConnectedModel | None = None

    def connect(self) -> ConnectedModel:
        """Return the current server; on a terminal, wait until it is ready.

        Raises `NoServerError`; `RequestError` if it serves another model than requested, or
        `ModelError` if there is no such model.
        """
        try:
            found = self._find()
        except NoServerError:
            if not self._options.is_interactive:
                raise
            self._start_or_wait()
            found = self._wait_until_listening()
        connected = self._require_model(self._wait_until_loaded(found))
        if self._last and self._last.info.pid != connected.info.pid:
            output.hint(
                f"Reconnected after a restart of the server: {connected.model}"
                f" at {connected.server.base_url}"
            )
        self._last = connected
        return connected

    def choose(self, model: str) -> ConnectedModel:
        """Require `model` from now on. Raises as `connect` does, without any change."""
        before, self._model = self._model, model
        try:
            return self.connect()
        except PensieveError:
            self._model = before
            raise

    def _find(self) -> ConnectedModel:
        require(self._options.settings.paths)
        target = find_target(self._options.settings)
        if not target.is_listening:
            raise NoServerError(target.base_url)
        server = target.server
        info = identify(server)
        return ConnectedModel(server, info.health.model or target.model, info)

    def _wait_until_loaded(self, connected: ConnectedModel) -> ConnectedModel:
        """Wait while the model loads. Without a terminal the answer's own error is enough."""
        if not self._options.is_interactive or connected.info.health.status != "loading":
            return connected
        output.hint(f"The server is loading {connected.model} …")
        while connected.info.health.status == "loading":
            self._options.pause()
            connected = self._find()
        if connected.info.health.status == "failed":
            raise ServerUnavailableError(
                connected.info.health.detail or "The engine has failed without giving a reason.",
                hint="Check the server:\n  pensieve status",
            )
        return connected

    def _require_model(self, connected: ConnectedModel) -> ConnectedModel:
        """The server accepts any name, but has one model; so compare here."""
        if self._model is None or not connected.info.health.model:
            return connected
        if self._model in _names(connected) or served_name(self._model) in _names(connected):
            return connected
        paths = self._options.settings.paths
        require_servable(self._model, paths)
        restart = restart_command(current(paths), Flags(model=self._model))
        raise RequestError(
            f"The server at {connected.server.base_url} serves {connected.model},"
            f" not {self._model}.",
            hint=f"Serve it instead:\n  {restart}",
        )

    def _start_or_wait(self) -> None:
        """Accept a starting server, or start one if the user agrees. Raises `NoServerError`."""
        settings = self._options.settings
        target = find_target(settings)
        if server_lock.is_held(settings.paths):
            output.hint("The server is starting …")
        elif self._options.ask_yes_no(
            f"No pensieve server answers at {target.base_url}. Start it now?"
        ):
            model_name = self._preferred_model()
            model = ["--model", model_name] if model_name else []
            if self._options.start(python("-m", "pensieve", "start", *model)):
                raise ServerUnavailableError("The server did not start.")
        else:
            raise NoServerError(target.base_url)

    def _preferred_model(self) -> str:
        """Return the requested model, else the model of the conversation so far."""
        return self._model or (self._last.info.health.repo if self._last else "")

    def _wait_until_listening(self) -> ConnectedModel:
        """Wait until the server listens, after a download perhaps. Raises `NoServerError`."""
        while server_lock.is_held(self._options.settings.paths):
            try:
                return self._find()
            except NoServerError:
                self._options.pause()
        return self._find()


def _names(connected: ConnectedModel) -> set[str]:
    return {connected.model, connected.info.health.repo}
