"""Choose a download's proxy before any library does.

Programs that set a proxy for macOS export HTTPS_PROXY and ALL_PROXY=socks5://… together. httpx
fails on the second although the first suffices, and pip does not support SOCKS at all; both then
advise to install packages into our environment. So SOCKS proxies are ignored if there is an HTTP
proxy, and otherwise refused with an error of our own.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from pensieve.errors import ModelUnavailableError
from pensieve.models.fetching.hub import HubInterruptedError
from pensieve.settings.resolve import child_environment, environment_restored, variables_without

_HTTP = {"http", "https"}
_PORTS = {"http": 80, "https": 443}
_EXCEPTIONS = ("NO_PROXY", "no_proxy")
# Clients refuse longer addresses.
MAX_CHARS = 2000


@contextmanager
def usable_proxies(url: str) -> Generator[None]:
    """Hide unusable proxies from libraries and children within the block.

    `url` is fetched in the block. Raises `ModelUnavailableError` if its proxy is of another kind or
    not an address. Exceptions read from NO_PROXY apply to the libraries too.
    """
    environ = child_environment({})
    target = _split(url)
    exceptions = _exceptions_for(target, environ) if target else {}
    proxy = _chosen(target) if target and not exceptions else ""
    if proxy:
        _require_usable(proxy, _variable_of(proxy, environ))
    with variables_without(_unusable(environ)), environment_restored(exceptions):
        try:
            yield
        except HubInterruptedError as error:
            if proxy:
                variable = _variable_of(proxy, environ)
                error.hint = f"The request goes through the proxy in {variable}.\n{error.hint}"
            raise


def refused() -> ModelUnavailableError:
    """Return the error for a SOCKS proxy."""
    return _refused("a SOCKS proxy")


def malformed(environ: Mapping[str, str]) -> ModelUnavailableError | None:
    """Return the error for a proxy variable that is not an address; None without one."""
    names = [name for name, value in _proxies(environ).items() if not _is_address(value)]
    return _malformed(names[0]) if names else None


def is_excepted(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether NO_PROXY excepts a host, by all forms that curl, requests and httpx know.

    Domain suffixes with or without a leading dot or star; `*` alone; addresses and networks of both
    families; each with a port or without.
    """
    return any(_excepts(entry.strip().lower(), host, port) for entry in no_proxy.split(","))


def _require_usable(proxy: str, variable: str) -> None:
    """Raise without repeating the address, which can hold a password."""
    if not _is_address(proxy):
        raise _malformed(variable)
    if (kind := _kind(proxy)) not in _HTTP:
        raise _refused("a SOCKS proxy" if kind.startswith("socks") else "a proxy of another kind")


def _variable_of(proxy: str, environ: Mapping[str, str]) -> str:
    """Return the name of the variable that sets `proxy`."""
    names = [name for name, value in _proxies(environ).items() if value == proxy]
    return names[0] if names else "the system's settings"


def _refused(name: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"The environment names {name}, and models are fetched through HTTP proxies only.",
        hint="Use the HTTP port that most programs with a SOCKS port have too, or no proxy:\n"
        "  export HTTPS_PROXY=http://127.0.0.1:PORT\n"
        "  unset ALL_PROXY all_proxy HTTPS_PROXY https_proxy",
    )


def _malformed(where: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"The proxy in {where} is not an address, so nothing is fetched through it.",
        hint="Write the address as http://HOST:PORT, and / : # @ and blanks in a password as %2F"
        " %3A %23 %40 %20:\n  export HTTPS_PROXY=http://127.0.0.1:PORT",
    )


def _chosen(target: SplitResult) -> str:
    """Return the proxy that clients select; empty for none."""
    proxies = getproxies()
    is_direct = proxy_bypass(target.hostname or "")
    return "" if is_direct else proxies.get(target.scheme) or proxies.get("all") or ""


def _exceptions_for(target: SplitResult, environ: Mapping[str, str]) -> dict[str, str]:
    """Return NO_PROXY with the target's name added if any form excepts it; else empty.

    Some clients do not know all forms.
    """
    host, port = (target.hostname or "").lower(), target.port or _PORTS.get(target.scheme)
    return {
        name: own if own.strip() == "*" else f"{own},{host}"
        for name in _EXCEPTIONS
        if (own := environ.get(name)) and is_excepted(host, port, own)
    }


def _excepts(entry: str, host: str, port: int | None) -> bool:
    name, colon, port_text = entry.rpartition(":")
    has_port = colon and port_text.isdecimal() and (name.endswith("]") or ":" not in name)
    if has_port and int(port_text) != port:
        return False
    name = (name if has_port else entry).removeprefix("[").removesuffix("]")
    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:
        name = name.removeprefix("*").removeprefix(".")
        return entry == "*" or (bool(name) and f".{host}".endswith(f".{name}"))


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the set proxy variables in the order of precedence: lower case first."""
    kinds = ("https_proxy", "http_proxy", "all_proxy")
    names = (name for kind in kinds for name in (kind, kind.upper()))
    return {name: environ[name] for name in names if environ.get(name)}


def _unusable(environ: Mapping[str, str]) -> list[str]:
    return [
        name
        for name, value in _proxies(environ).items()
        if _kind(value) not in _HTTP or not _is_address(value)
    ]


def _is_address(proxy: str) -> bool:
    """Whether clients can parse it: a host, an optional port, only printable characters."""
    parts = _split(proxy if "://" in proxy else f"http://{proxy}")
    is_plain = proxy.isprintable() and not any(map(str.isspace, proxy)) and len(proxy) <= MAX_CHARS
    if parts is None or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return False  # a password with / ? or # in it
    try:
        return is_plain and bool((parts.hostname or "").encode("idna"))
    except UnicodeError:
        return False


def _split(url: str) -> SplitResult | None:
    """Return None for an invalid URL or port."""
    try:
        parts = urlsplit(url)
        is_port = parts.port != 0
    except ValueError:
        return None
    return parts if is_port else None


def _kind(proxy: str) -> str:
    """Return the scheme; an address without one is an HTTP proxy's."""
    return proxy.partition("://")[0].lower() if "://" in proxy else "http"
