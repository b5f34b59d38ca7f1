"""HTTP to a server: one client per call, with transport errors translated. Knows no paths."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pensieve.credentials.trust import SYSTEM_TRUST, Trust
from pensieve.errors import NoServerError, ServerUnavailableError
from pensieve.untrusted_json import read_object

if TYPE_CHECKING:
    import httpx

API_VERSION = "2023-06-01"
SHORT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Server:
    base_url: str
    api_key: str
    pid: int | None = None  # of the listening process, if the server record has it
    trust: Trust = SYSTEM_TRUST  # where the address is https


def key_header(server: Server) -> Mapping[str, str]:
    """Return the key header, for a server whose identity is proven (server_identity.py)."""
    return {"x-api-key": server.api_key}


@contextmanager
def http_client(
    server: Server, timeout_s: float, *, headers: Mapping[str, str]
) -> Generator["httpx.Client"]:
    """Yield a client for one call. Raises `NoServerError`, `ServerUnavailableError`."""
    import httpx  # takes 0.25 s, which `--help` and `env` avoid

    timeout = httpx.Timeout(timeout_s, connect=SHORT_TIMEOUT_S)
    try:
        # trust_env: no proxy, because the server is on this machine.
        with httpx.Client(
            base_url=server.base_url,
            headers={"anthropic-version": API_VERSION, **headers},
            timeout=timeout,
            trust_env=False,
            verify=server.trust.context() if server.base_url.startswith("https:") else True,
        ) as client:
            yield client
    except httpx.ConnectError as error:
        raise NoServerError(server.base_url) from error
    except httpx.TimeoutException as error:
        raise _failed(f"The server at {server.base_url} has not answered in time.") from error
    except httpx.TransportError as error:
        raise _failed(
            f"The server at {server.base_url} closed the connection before its answer was"
            " complete: it was stopped or has crashed."
        ) from error
    except httpx.HTTPError as error:
        raise _failed(f"The connection to {server.base_url} failed: {error}.") from error


def _failed(message: str) -> ServerUnavailableError:
    hint = "Check the server, then ask again:\n  pensieve status"
    return ServerUnavailableError(message, hint=hint)


def decode_object(content: bytes) -> dict[str, Any]:
    """Return the JSON object of a response; empty if there is none."""
    try:
        return read_object(content)
    except ValueError:
        return {}
