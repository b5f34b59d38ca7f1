"""One GET request to a Hub with limits: redirect targets, time for the head, pace of the body.

huggingface_hub's session has the user's proxies, but alone it would follow every redirect and wait
forever. Knows no repository.
"""

# pyright: basic

import ipaddress
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING

from pensieve.worker_threads import within

if TYPE_CHECKING:
    import httpx2

# Without a byte for this long the connection counts as dead. Hugging Face's own read timeout is
# 10 s, too short for a slow mirror.
STALL_TIMEOUT_S = 30
# For a whole head: one that arrives byte by byte, or after endless hints, never stalls.
HEAD_TIMEOUT_S = 90
# The real Hub redirects once, to the storage of large files.
MAX_REDIRECTS = 5
# The minimum per window; a modem achieves 200 000 bytes.
WINDOW_S = 60
MIN_WINDOW_BYTES = 32_768
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Headers that classify an error, whose body is not read.
_ERROR_HEADERS = ("x-error-code", "retry-after")


class BadAnswerError(Exception):
    """The server does not answer like a Hub; the text completes "the Hub: …"."""


class SlowAnswerError(Exception):
    """Too few bytes arrived in too long a time; a retry may help."""


@contextmanager
def exchange(
    url: str, headers: Mapping[str, str], endpoint: str, head_timeout_s: float = HEAD_TIMEOUT_S
) -> "Generator[httpx2.Response]":
    """GET `url`, follow redirects and yield the response before its body is read.

    A token in `headers` is sent only to the Hub at `endpoint`. Raises `BadAnswerError`,
    `SlowAnswerError`, and httpx2's and huggingface_hub's errors, also for error statuses.
    """
    headers = {**headers, "accept-encoding": "identity"}
    response = _follow_redirects(url, headers, endpoint, head_timeout_s)
    try:
        if response.is_error:
            _raise_for(response)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise BadAnswerError("it sends a compressed body")
        yield response
    finally:
        response.close()


def paced(
    chunks: Iterable[bytes], limit_s: float = inf, clock: Callable[[], float] = time.monotonic
) -> Iterator[bytes]:
    """Yield `chunks` while they arrive fast enough and within the limit. Raises
    `SlowAnswerError`.
    """
    began_at = window_from = clock()
    received = 0
    for chunk in chunks:
        yield chunk
        received += len(chunk)
        if received >= MIN_WINDOW_BYTES:
            window_from, received = clock(), 0
        elif clock() > window_from + WINDOW_S:
            raise SlowAnswerError(f"{received} bytes arrived in a minute")
        if clock() > began_at + limit_s:
            raise SlowAnswerError(f"its answer takes more than {limit_s:g} s")


def read_whole(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    """Raises `BadAnswerError` for a longer body."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise BadAnswerError(f"it sends more than {max_bytes // 2**20} MiB")
    return bytes(body)


def _follow_redirects(
    url: str, headers: Mapping[str, str], endpoint: str, head_timeout_s: float
) -> "httpx2.Response":
    from httpx2 import URL

    hub, target = URL(endpoint), URL(url)
    for _ in range(MAX_REDIRECTS + 1):
        sent_headers = _without_token(headers) if _is_other(hub, target) else headers
        response = _head(target, sent_headers, head_timeout_s)
        if response.status_code not in _REDIRECTS or "location" not in response.headers:
            return response
        response.close()
        target = _target(target, response.headers["location"], hub)
    raise BadAnswerError(f"it redirects more than {MAX_REDIRECTS} times")


def _head(
    url: "httpx2.URL", headers: Mapping[str, str], head_timeout_s: float
) -> "httpx2.Response":
    from huggingface_hub.utils import get_session

    client = get_session()
    request = client.build_request("GET", url, headers=dict(headers), timeout=STALL_TIMEOUT_S)
    try:
        return within(
            head_timeout_s, lambda: client.send(request, stream=True, follow_redirects=False)
        )
    except TimeoutError:
        raise SlowAnswerError(
            f"the head of its answer takes more than {head_timeout_s:g} s"
        ) from None


def _target(base: "httpx2.URL", location: str, hub: "httpx2.URL") -> "httpx2.URL":
    target = base.join(location)
    if target.scheme not in {"http", "https"} or (base.scheme, target.scheme) == ("https", "http"):
        raise BadAnswerError(f"it redirects to an address of the kind {target.scheme[:20]!r}")
    if is_local(target.host) and not is_local(hub.host):
        raise BadAnswerError("it redirects to this machine")
    return target


def is_local(host: str) -> bool:
    """Whether a host is this machine or link-local, where cloud machines serve their secrets."""
    with suppress(ValueError):
        return _is_local_address(ipaddress.ip_address(host.strip("[]")))
    if host == "localhost" or host.endswith(".localhost"):
        return True
    # With a proxy, names may not resolve here; then the proxy resolves them.
    with suppress(OSError, UnicodeError):
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = (ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries)
        return any(map(_is_local_address, addresses))
    return False


def _is_local_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    inner = getattr(address, "ipv4_mapped", None) or address
    return inner.is_loopback or inner.is_unspecified or inner.is_link_local


def _is_other(hub: "httpx2.URL", url: "httpx2.URL") -> bool:
    return (hub.scheme, hub.host, hub.port) != (url.scheme, url.host, url.port)


def _without_token(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() != "authorization"}


def _raise_for(response: "httpx2.Response") -> None:
    """Raise huggingface_hub's error without the body, which it would read completely and may
    fail on.
    """
    from httpx2 import Response
    from huggingface_hub.utils import hf_raise_for_status

    headers = {
        name: response.headers[name][:100] for name in _ERROR_HEADERS if name in response.headers
    }
    hf_raise_for_status(
        Response(response.status_code, headers=headers, content=b"", request=response.request)
    )
