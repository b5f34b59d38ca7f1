"""What a server says of itself, and whether it is ours: asked before it is sent the key or a word of what is typed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from pensieve.cli.client.connection import SHORT_TIMEOUT_S, Server, client_of, decoded, key_of
from pensieve.daemon.health_client import MAX_BYTES, Health, read
from pensieve.errors import ForeignServerError
from pensieve.peer_proof import CHALLENGE_HEADER, PROOF_FIELD, Prover, new_challenge
from pensieve.settings.resolve import DEFAULT_API_KEY

if TYPE_CHECKING:
    import httpx

OTHER_KEY_HINT = (
    "Another program has the port, or a server with another key than this shell has in"
    " PENSIEVE_API_KEY. See which:\n  pensieve doctor"
)
DEFAULT_KEY_HINT = (
    "No server of this home runs, and the default key, which everyone knows, tells no other one"
    " apart. Start yours:\n  pensieve start\nOr give that server and this shell a key of their own:"
    '\n  export PENSIEVE_API_KEY="$(openssl rand -hex 32)"'
)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """pid: changes when the server is started again. thinks: its model can think first."""

    health: Health
    pid: int
    thinks: bool
    temperature: float  # of calls that do not give one


def identify(server: Server) -> ServerInfo:
    """What answers there, also while it loads. It gets the key only once it has shown that it is ours.

    Raises `NoServerError` where nobody answers, `ForeignServerError`.
    """
    challenge = new_challenge()
    with client_of(server, SHORT_TIMEOUT_S, headers={CHALLENGE_HEADER: challenge}) as client:
        body = _get(client, "/health")
    _check_peer(server, body, challenge)
    pid = body.get("pid")
    health = read(body, pid if isinstance(pid, int) else 0)
    with client_of(server, SHORT_TIMEOUT_S, headers=key_of(server)) as client:
        model = _get(client, f"/v1/models/{quote(health.model, safe='')}")
    match model:
        case {"capabilities": {"thinking": {"types": {"adaptive": {"supported": True}}}}}:
            thinks = True
        case _:
            thinks = False
    return ServerInfo(health, pid if isinstance(pid, int) else 0, thinks, _temperature(body))


def _check_peer(server: Server, health: Mapping[str, Any], challenge: str) -> None:
    """A record tells which process listens; without one only a key that is no one else's does."""
    if server.pid is not None and health.get("pid") == server.pid:
        return
    is_secret = server.api_key != DEFAULT_API_KEY
    port = urlsplit(server.base_url).port or 80
    if is_secret and Prover(server.api_key).is_proof(health.get(PROOF_FIELD), challenge, port):
        return
    hint = OTHER_KEY_HINT if is_secret else DEFAULT_KEY_HINT
    raise ForeignServerError(server.base_url, hint=hint)


def _get(client: "httpx.Client", path: str) -> dict[str, Any]:
    """The object there. No more is read than any server of ours says: who answers is not known yet."""
    content = b""
    with client.stream("GET", path, headers={"accept-encoding": "identity"}) as response:
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > MAX_BYTES:
                return {}
    return decoded(content)


def _temperature(health: Mapping[str, Any]) -> float:
    match health:
        case {"sampling": {"temperature": {"value": int() | float() as value}}}:
            return value
        case _:
            return 1.0
