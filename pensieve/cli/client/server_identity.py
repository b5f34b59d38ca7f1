"""Reads a server's state, after checking that it is ours: before the key or any prompt is sent."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pensieve.api.models import ModelInfo
from pensieve.cli.client.connection import (
    SHORT_TIMEOUT_S,
    Server,
    decode_object,
    http_client,
    key_header,
)
from pensieve.cli.client.own_server import require_own_server
from pensieve.daemon.health_client import MAX_BYTES, Health, read
from pensieve.peer_proof import CHALLENGE_HEADER, new_challenge

if TYPE_CHECKING:
    import httpx


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
    require_own_server(server, body, challenge)
    pid = body.get("pid")
    health = read(body, pid if isinstance(pid, int) else 0)
    with http_client(server, SHORT_TIMEOUT_S, headers=key_header(server)) as client:
        model = _get(client, f"/v1/models/{quote(health.model, safe='')}")
    pid = pid if isinstance(pid, int) else 0
    return ServerInfo(health, pid, _thinks(model), _temperature(body))


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
