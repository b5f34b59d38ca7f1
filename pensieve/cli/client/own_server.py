"""Refuses a server that has not proved to be the user's own, before the key is sent to it.

Standard library only: `status` reads a server's activity, and is run by shells' prompts.
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from pensieve.cli.client.connection import Server
from pensieve.errors import ForeignServerError
from pensieve.peer_proof import PROOF_FIELD, Prover
from pensieve.settings.resolve import DEFAULT_API_KEY

OTHER_KEY_HINT = (
    "Another program has the port, or a server with another key than this shell's"
    " PENSIEVE_API_KEY. Find out which:\n  pensieve doctor"
)
DEFAULT_KEY_HINT = (
    "No server of this home is running, and the default key is public, so it cannot identify"
    " another one. Start yours:\n  pensieve start\nOr give that server and this shell a secret key:"
    '\n  export PENSIEVE_API_KEY="$(openssl rand -hex 32)"'
)


def require_own_server(server: Server, health: Mapping[str, object], challenge: str) -> None:
    """Compare the pid of the server record; without a record require proof of a secret key. On
    https the certificate has proved it already.

    health: the body of `GET /health` with `challenge`. Raises `ForeignServerError`.
    """
    if server.pid is not None and health.get("pid") == server.pid:
        return
    if server.pid is None and server.base_url.startswith("https:"):
        return
    is_secret = server.api_key != DEFAULT_API_KEY
    port = urlsplit(server.base_url).port or 80
    if is_secret and Prover(server.api_key).is_proof(health.get(PROOF_FIELD), challenge, port):
        return
    hint = OTHER_KEY_HINT if is_secret else DEFAULT_KEY_HINT
    raise ForeignServerError(server.base_url, hint=hint)
