"""HTTP to a server: one client for each call, and what goes wrong on the wire in our words. Knows no path."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pensieve.errors import NoServerError, ServerUnavailableError
from pensieve.untrusted_json import read_object

if TYPE_CHECKING:
    import httpx

API_VERSION = "2023-06-01"
SHORT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Server:
    """Where the calls go, and with which key. pid: of the process that listens there, where its record tells."""

    base_url: str
    api_key: str
    pid: int | None = None


def key_of(server: Server) -> Mapping[str, str]:
    """The header that holds the key: for a server that has shown that it is ours (server_identity.py)."""
    return {"x-api-key": server.api_key}


@contextmanager
def client_of(
    server: Server, timeout_s: float, *, headers: Mapping[str, str]
) -> Generator["httpx.Client"]:
    """A client of one call."""
    import httpx  # a quarter of a second that `--help` and `env` do without

    timeout = httpx.Timeout(timeout_s, connect=SHORT_TIMEOUT_S)
    try:
        # Never through a proxy: the server is this machine.
        with httpx.Client(
            base_url=server.base_url,
            headers={"anthropic-version": API_VERSION, **headers},
            timeout=timeout,
            trust_env=False,
        ) as client:
            yield client
    except httpx.ConnectError as error:
        raise NoServerError(server.base_url) from error
    except httpx.HTTPError as error:
        raise ServerUnavailableError(
            f"The connection to {server.base_url} broke off ({type(error).__name__}).",
            hint="See how the server is:\n  pensieve status",
        ) from error


def decoded(content: bytes) -> dict[str, Any]:
    """The JSON object in a response; empty where there is none."""
    try:
        return read_object(content)
    except ValueError:
        return {}
