"""A connection to a server, with TLS where its address says so. Never through a proxy."""

from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit

from pensieve.credentials.trust import Trust


def http_connection(base_url: str, trust: Trust, timeout_s: float) -> HTTPConnection:
    """Raises `SettingsError` if what the settings trust cannot be read."""
    address = urlsplit(base_url)
    host = address.hostname or ""
    if address.scheme != "https":
        return HTTPConnection(host, address.port, timeout=timeout_s)
    return HTTPSConnection(host, address.port, timeout=timeout_s, context=trust.context())
