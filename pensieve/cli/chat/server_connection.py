"""Which server a conversation talks to: found anew for each question, waited for while it loads, started where a person agrees."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pensieve.cli.client.connection import Server
from pensieve.cli.client.server_identity import ServerInfo, identify
from pensieve.cli.client.target import find_target, served_name
from pensieve.cli.ui import output
from pensieve.daemon import server_lock
from pensieve.errors import NoServerError, RequestError, ServerUnavailableError
from pensieve.isolation import python
from pensieve.settings.resolve import Settings

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class ConnectedModel:
    """A server that answered just now, and the name that its model is called by."""

    server: Server
    model: str
    served: ServerInfo


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """What a link is made of. has_person: somebody can be asked, and sees what is waited for."""

    settings: Settings
    has_person: bool
    agrees: Callable[[str], bool] = output.agrees
    start: Callable[[Sequence[str]], int] = lambda command: (
        subprocess.run(  # noqa: S603 -- our own interpreter
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
        ).returncode
    )
    pause: Callable[[], None] = lambda: time.sleep(POLL_S)


class ServerConnection:
    """Owns which server answered last. model: the one that was asked for by name, None for whichever is served."""

    def __init__(self, means: ConnectOptions, model: str | None) -> None:
        self._means = means
        self._model = model
        self._last: ConnectedModel | None = None

    def peer(self) -> ConnectedModel:
        """The server as it is now, ready to answer where a person waits for that.

        Raises `NoServerError` where there is none, `RequestError` where it serves another model than was asked for.
        """
        try:
            found = self._found()
        except NoServerError:
            if not self._means.has_person:
                raise
            self._bring_up()
            found = self._come_up()
        peer = self._checked(self._loaded(found))
        if self._last and self._last.served.pid != peer.served.pid:
            output.hint(
                f"Connected again: the server was started anew. {peer.model} at {peer.server.base_url}"
            )
        self._last = peer
        return peer

    def choose(self, model: str) -> ConnectedModel:
        """Ask for `model` from now on. Raises as `peer` does, and then nothing changes."""
        before, self._model = self._model, model
        try:
            return self.peer()
        except RequestError:
            self._model = before
            raise

    def _found(self) -> ConnectedModel:
        target = find_target(self._means.settings)
        if not target.is_listening:
            raise NoServerError(target.base_url)
        server = Server(target.base_url, target.api_key, target.pid)
        known = identify(server)
        return ConnectedModel(server, known.health.model or target.model, known)

    def _loaded(self, peer: ConnectedModel) -> ConnectedModel:
        """Wait while it loads. Without a person the server's own words, which come with the answer, do."""
        if not self._means.has_person or peer.served.health.status != "loading":
            return peer
        output.hint(f"The server loads {peer.model} …")
        while peer.served.health.status == "loading":
            self._means.pause()
            peer = self._found()
        if peer.served.health.status == "failed":
            raise ServerUnavailableError(
                peer.served.health.detail or "The engine has failed and gives no reason.",
                hint="See how the server is:\n  pensieve status",
            )
        return peer

    def _checked(self, peer: ConnectedModel) -> ConnectedModel:
        """The server answers under any name, with the one model that it has."""
        if self._model is None or not peer.served.health.model:
            return peer
        if self._model in _names(peer) or served_name(self._model) in _names(peer):
            return peer
        raise RequestError(
            f"The server at {peer.server.base_url} serves {peer.model}, not {self._model}.",
            hint=f"Serve it instead:\n  pensieve restart --model {self._model}",
        )

    def _bring_up(self) -> None:
        """Wait for a server that is just starting, or start one where the person agrees. Raises `NoServerError`."""
        settings = self._means.settings
        target = find_target(settings)
        if server_lock.is_held(settings.paths):
            output.hint("The server is starting …")
        elif self._means.agrees(f"No pensieve server answers at {target.base_url}. Start it now?"):
            wanted = self._wanted()
            model = ["--model", wanted] if wanted else []
            if self._means.start(python("-m", "pensieve", "start", *model)):
                raise ServerUnavailableError("The server did not start.")
        else:
            raise NoServerError(target.base_url)

    def _wanted(self) -> str:
        """The model that was asked for; else that of the server that answered last, with which the conversation was."""
        return self._model or (self._last.served.health.repo if self._last else "")

    def _come_up(self) -> ConnectedModel:
        """The server that is starting, once it listens: it may fetch its model first. Raises `NoServerError` where it ends."""
        while server_lock.is_held(self._means.settings.paths):
            try:
                return self._found()
            except NoServerError:
                self._means.pause()
        return self._found()


def _names(peer: ConnectedModel) -> set[str]:
    return {peer.model, peer.served.health.repo}
