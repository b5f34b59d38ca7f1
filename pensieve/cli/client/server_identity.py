"""Checks that a server is ours before the key or any prompt is sent, and reads its state."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from pensieve.api.models import ModelInfo
from pensieve.cli.client.connection import (
    SHORT_TIMEOUT_S,
    Server,
    decode_object,
    http_client,
    key_header,
)
from pensieve.daemon.health_client import MAX_BYTES, Health, read
from pensieve.errors import ForeignServerError
from pensieve.peer_proof import CHALLENGE_HEADER, PROOF_FIELD, Prover, new_challenge
from pensieve.settings.resolve import DEFAULT_API_KEY

if TYPE_CHECKING:
    import httpx

OTHER_KEY_HINT = (
    "Another program has the port, or a server with another key than this shell's"
    " PENSIEVE_API_KEY. Find out which:\n  pensieve doctor"
)
DEFAULT_KEY_HINT = (
    "No server of this home is running, and the default key is public, so it cannot identify"
    " another one. Start yours:\n  pensieve start\nOr give that server and this shell a secret key:"
    '\n  export PENSIEVE_API_KEY="$(openssl rand -hex 32)"'
)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    health: Health
    pid: int  # changes when the server restarts
    thinks: bool  # the model supports thinking
    temperature: float  # default of calls without one


def identify(server: Server) -> ServerInfo:
    """Return the server's state, even while it loads. Send the key only after the check.

    Raises `NoServerError` if no server answers, `ForeignServerError`.
    """
    challenge = new_challenge()
    with http_client(server, SHORT_TIMEOUT_S, headers={CHALLENGE_HEADER: challenge}) as client:
        body = decode_object(_get(client, "/health"))
    _check_identity(server, body, challenge)
    pid = body.get("pid")
    health = read(body, pid if isinstance(pid, int) else 0)
    with http_client(server, SHORT_TIMEOUT_S, headers=key_header(server)) as client:
        model = _get(client, f"/v1/models/{quote(health.model, safe='')}")
    pid = pid if isinstance(pid, int) else 0
    return ServerInfo(health, pid, _thinks(model), _temperature(body))


def _check_identity(server: Server, health: Mapping[str, Any], challenge: str) -> None:
    """Compare the pid of the server record; without a record require proof of a secret key."""
    if server.pid is not None and health.get("pid") == server.pid:
        return
    is_secret = server.api_key != DEFAULT_API_KEY
    port = urlsplit(server.base_url).port or 80
    if is_secret and Prover(server.api_key).is_proof(health.get(PROOF_FIELD), challenge, port):
        return
    hint = OTHER_KEY_HINT if is_secret else DEFAULT_KEY_HINT
    raise ForeignServerError(server.base_url, hint=hint)


def _thinks(model: bytes) -> bool:
    """Return whether the model supports thinking; False if the answer is not a model."""
    with suppress(ValueError):
        return ModelInfo.model_validate_json(model).capabilities.thinking.types.adaptive.supported
    return False


def _get(client: "httpx.Client", path: str) -> bytes:
    """Return the untrusted body at `path`, empty if it is larger than `MAX_BYTES`."""
    content = b""
    with client.stream("GET", path, headers={"accept-encoding": "identity"}) as response:
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > MAX_BYTES:
                return b""
    return content


def _temperature(health: Mapping[str, Any]) -> float:
    match health:
        case {"sampling": {"temperature": {"value": int() | float() as value}}}:
            return value
        case _:
            return 1.0
