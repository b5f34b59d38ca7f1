"""One GET from a Hub, bounded: where it may lead, how long its head and how much its body may take.

huggingface_hub's session has the user's proxies; it would follow every redirect and wait for ever.
Knows no repository.
"""

# pyright: basic

import ipaddress
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING

from pensieve.models.tokenizer.deadline import within

if TYPE_CHECKING:
    import httpx2

# No byte for so long: the connection is dead. Hugging Face's own read timeout is 10 s, too short
# for a slow mirror.
STALL_S = 30
# For a whole head; one that comes byte by byte, or after hints without end, keeps no stall's clock.
HEAD_S = 90
# The real Hub sends on once, to where large files lie.
MAX_REDIRECTS = 5
# In each minute; a telephone line brings 200 000.
WINDOW_S = 60
MIN_WINDOW_BYTES = 32_768
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# What an error says of its kind. Its body is not read.
_TELLING = ("x-error-code", "retry-after")


class BadAnswerError(Exception):
    """What answers does not do as a Hub does; its text says what, after the Hub's name and a colon."""


class SlowAnswerError(Exception):
    """Too little came in too long a time; trying again may help."""


@contextmanager
def exchange(
    url: str, headers: Mapping[str, str], endpoint: str, head_s: float = HEAD_S
) -> "Generator[httpx2.Response]":
    """GET `url` and follow where it leads; the answer, of whose body nothing is read.

    A token in `headers` is sent to the Hub at `endpoint` alone. Raises `BadAnswerError`,
    `SlowAnswerError`, and httpx2's and huggingface_hub's errors, also for a status that is one.
    """
    headers = {**headers, "accept-encoding": "identity"}
    response = _followed(url, headers, endpoint, head_s)
    try:
        if response.is_error:
            _raise_for(response)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise BadAnswerError("it sends what is compressed")
        yield response
    finally:
        response.close()


def paced(
    chunks: Iterable[bytes], limit_s: float = inf, clock: Callable[[], float] = time.monotonic
) -> Iterator[bytes]:
    """`chunks` for as long as they come fast enough, and for no longer. Raises `SlowAnswerError`."""
    began_at = window_from = clock()
    received = 0
    for chunk in chunks:
        yield chunk
        received += len(chunk)
        if received >= MIN_WINDOW_BYTES:
            window_from, received = clock(), 0
        elif clock() > window_from + WINDOW_S:
            raise SlowAnswerError(f"{received} bytes came in a minute")
        if clock() > began_at + limit_s:
            raise SlowAnswerError(f"its answer takes more than {limit_s:g} s")


def read_whole(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    """Raises `BadAnswerError` where there are more."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise BadAnswerError(f"it says more than {max_bytes // 2**20} MiB")
    return bytes(body)


def _followed(
    url: str, headers: Mapping[str, str], endpoint: str, head_s: float
) -> "httpx2.Response":
    from httpx2 import URL

    hub, place = URL(endpoint), URL(url)
    for _ in range(MAX_REDIRECTS + 1):
        allowed = _without_token(headers) if _is_other(hub, place) else headers
        response = _head(place, allowed, head_s)
        if response.status_code not in _REDIRECTS or "location" not in response.headers:
            return response
        response.close()
        place = _target(place, response.headers["location"], hub)
    raise BadAnswerError(f"it redirects more than {MAX_REDIRECTS} times")


def _head(url: "httpx2.URL", headers: Mapping[str, str], head_s: float) -> "httpx2.Response":
    from huggingface_hub.utils import get_session

    client = get_session()
    request = client.build_request("GET", url, headers=dict(headers), timeout=STALL_S)
    try:
        return within(head_s, lambda: client.send(request, stream=True, follow_redirects=False))
    except TimeoutError:
        raise SlowAnswerError(f"the head of its answer takes more than {head_s:g} s") from None


def _target(place: "httpx2.URL", location: str, hub: "httpx2.URL") -> "httpx2.URL":
    target = place.join(location)
    if target.scheme not in {"http", "https"} or (place.scheme, target.scheme) == ("https", "http"):
        raise BadAnswerError(f"it redirects to an address of the kind {target.scheme[:20]!r}")
    if is_local(target.host) and not is_local(hub.host):
        raise BadAnswerError("it redirects to this machine")
    return target


def is_local(host: str) -> bool:
    """Whether a name or an address is this machine's own, or of its link, where clouds tell secrets."""
    with suppress(ValueError):
        return _is_local_address(ipaddress.ip_address(host.strip("[]")))
    if host == "localhost" or host.endswith(".localhost"):
        return True
    # Behind a proxy no name may be known here; the proxy looks it up then, elsewhere.
    with suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = (ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)
        return any(map(_is_local_address, addresses))
    return False


def _is_local_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    inner = getattr(address, "ipv4_mapped", None) or address
    return inner.is_loopback or inner.is_unspecified or inner.is_link_local


def _is_other(hub: "httpx2.URL", place: "httpx2.URL") -> bool:
    return (hub.scheme, hub.host, hub.port) != (place.scheme, place.host, place.port)


def _without_token(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() != "authorization"}


def _raise_for(response: "httpx2.Response") -> None:
    """By huggingface_hub, which would read the body whole, and fail at one that is not as it expects."""
    from httpx2 import Response
    from huggingface_hub.utils import hf_raise_for_status

    telling = {name: response.headers[name][:100] for name in _TELLING if name in response.headers}
    hf_raise_for_status(
        Response(response.status_code, headers=telling, content=b"", request=response.request)
    )
