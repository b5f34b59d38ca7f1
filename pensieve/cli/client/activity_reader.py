"""Asks a server for its activity. Standard library only, and never through a proxy.

The key goes over the connection on which the server has proved to be the user's own.
"""

from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException

from pensieve.cli.client.connection import SHORT_TIMEOUT_S, Server, key_header
from pensieve.cli.client.own_server import require_own_server
from pensieve.cli.client.target import find_target
from pensieve.daemon.health_client import key_refused, reason_of
from pensieve.daemon.http_connection import http_connection
from pensieve.daemon.server_record import require
from pensieve.errors import NoServerError, ServerUnavailableError
from pensieve.peer_proof import CHALLENGE_HEADER, new_challenge
from pensieve.settings.resolve import Settings
from pensieve.untrusted_json import read_object

ACTIVITY = "/activity"
HISTORY = "/activity/history"
MAX_BYTES = 8 * 2**20

Body = Mapping[str, object]


def find_server(settings: Settings) -> Server:
    """Return the running server, else the one that the settings name.

    Raises `RecordUnreadableError`, and `ServerUnavailableError` while the server's model is
    downloaded.
    """
    require(settings.paths)
    target = find_target(settings)
    if not target.is_listening:
        raise ServerUnavailableError(
            "The server still downloads its model.", hint="See how far it is:\n  pensieve logs -f"
        )
    return target.server


def read_activity(server: Server, *paths: str) -> list[Body]:
    """Return the body at each path. Raises `NoServerError`, `ServerUnavailableError`,
    `ForeignServerError`, `AuthenticationError`.
    """
    connection = http_connection(server.base_url, server.trust, SHORT_TIMEOUT_S)
    try:
        with closing(connection):
            return _read(connection, server, paths)
    except ConnectionRefusedError as error:
        raise NoServerError(server.base_url) from error
    except (OSError, HTTPException, ValueError) as error:
        raise ServerUnavailableError(
            f"The server at {server.base_url} cannot be asked: {reason_of(error)}.",
            hint="Check the server:\n  pensieve status",
        ) from error


def _read(connection: HTTPConnection, server: Server, paths: tuple[str, ...]) -> list[Body]:
    challenge = new_challenge()
    _, health = _get(connection, "/health", {CHALLENGE_HEADER: challenge})
    require_own_server(server, health, challenge)
    connection.auto_open = 0  # never send the key over another connection
    answers = [_get(connection, path, key_header(server)) for path in paths]
    for status, _ in answers:
        _check(status, health)
    return [body for _, body in answers]


def _get(connection: HTTPConnection, path: str, headers: Mapping[str, str]) -> tuple[int, Body]:
    connection.request("GET", path, headers=dict(headers))
    response = connection.getresponse()
    content = response.read(MAX_BYTES)
    return response.status, read_object(content, max_bytes=MAX_BYTES)


def _check(status: int, health: Body) -> None:
    if status == 200:
        return
    if status == 401:
        raise key_refused()
    if status >= 500:
        raise ServerUnavailableError(
            f"The server answers with an error, {status}.", hint="See why:\n  pensieve logs"
        )
    raise ServerUnavailableError(
        f"The server, version {health.get('version', 'unknown')}, does not report its activity.",
        hint="Restart it with this version:\n  pensieve restart",
    )
