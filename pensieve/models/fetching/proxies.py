"""Which proxy a download goes through, decided before any library looks.

Programs that set a proxy for macOS export HTTPS_PROXY and ALL_PROXY=socks5://… together. httpx
fails at the second although the first is enough, and pip has no SOCKS at all: both then say what
to install into an environment that is ours. So SOCKS proxies are left out where an HTTP proxy
does, and refused in our words where there is no other.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from pensieve.errors import ModelUnavailableError
from pensieve.models.fetching.hub import HubInterruptedError
from pensieve.settings.resolve import child_environment, environment_kept, variables_without

_HTTP = {"http", "https"}
_PORTS = {"http": 80, "https": 443}
_EXCEPTIONS = ("NO_PROXY", "no_proxy")
# Clients read no longer address.
MAX_CHARS = 2000


@contextmanager
def usable_proxies(url: str) -> Generator[None]:
    """Within the block, libraries and children find those proxies only that can be used.

    url: what is to be fetched. Raises `ModelUnavailableError` where its proxy is of another kind,
    or no address. An exception that this reads in NO_PROXY holds for the library too.
    """
    environ = child_environment({})
    target = _split(url)
    exceptions = _exceptions_for(target, environ) if target else {}
    proxy = _chosen(target) if target and not exceptions else ""
    if proxy:
        _require_usable(proxy, _place_of(proxy, environ))
    with variables_without(_unusable(environ)), environment_kept(exceptions):
        try:
            yield
        except HubInterruptedError as error:
            if proxy:
                error.hint = (
                    f"It is asked through the proxy in {_place_of(proxy, environ)}.\n{error.hint}"
                )
            raise


def refused() -> ModelUnavailableError:
    """Return what to say of a SOCKS proxy."""
    return _refused("a SOCKS proxy")


def malformed(environ: Mapping[str, str]) -> ModelUnavailableError | None:
    """Return what to say where a proxy variable holds what is no address; None where none does."""
    names = [name for name, value in _proxies(environ).items() if not _is_address(value)]
    return _malformed(names[0]) if names else None


def is_excepted(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether NO_PROXY takes a host out: what curl, requests and httpx know of its forms, together.

    Names with what ends in them, with or without a dot or a star before; `*` alone; addresses and
    networks of both families; each with a port or for all of them.
    """
    return any(_excepts(entry.strip().lower(), host, port) for entry in no_proxy.split(","))


def _require_usable(proxy: str, place: str) -> None:
    """Its address may hold a password, and nothing of it is repeated."""
    if not _is_address(proxy):
        raise _malformed(place)
    if (kind := _kind(proxy)) not in _HTTP:
        raise _refused("a SOCKS proxy" if kind.startswith("socks") else "a proxy of another kind")


def _place_of(proxy: str, environ: Mapping[str, str]) -> str:
    """Return where it is set."""
    names = [name for name, value in _proxies(environ).items() if value == proxy]
    return names[0] if names else "the system's settings"


def _refused(name: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"The environment names {name}, and models are fetched through HTTP proxies only.",
        hint="Most programs with a SOCKS port have an HTTP port too. With that one, or without any:\n"
        "  export HTTPS_PROXY=http://127.0.0.1:PORT\n"
        "  unset ALL_PROXY all_proxy HTTPS_PROXY https_proxy",
    )


def _malformed(where: str) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"The proxy in {where} is no address, so nothing is fetched through it.",
        hint="An address is http://HOST:PORT; in a password, / : # @ and blanks are written as %2F"
        " %3A %23 %40 %20:\n  export HTTPS_PROXY=http://127.0.0.1:PORT",
    )


def _chosen(target: SplitResult) -> str:
    """Return the proxy that clients take for it; empty for none."""
    proxies = getproxies()
    is_direct = proxy_bypass(target.hostname or "")
    return "" if is_direct else proxies.get(target.scheme) or proxies.get("all") or ""


def _exceptions_for(target: SplitResult, environ: Mapping[str, str]) -> dict[str, str]:
    """Return NO_PROXY with the target by its name, where it is in it by any form; else nothing."""
    host, port = (target.hostname or "").lower(), target.port or _PORTS.get(target.scheme)
    return {
        name: own if own.strip() == "*" else f"{own},{host}"
        for name in _EXCEPTIONS
        if (own := environ.get(name)) and is_excepted(host, port, own)
    }


def _excepts(entry: str, host: str, port: int | None) -> bool:
    name, colon, wanted = entry.rpartition(":")
    has_port = colon and wanted.isdecimal() and (name.endswith("]") or ":" not in name)
    if has_port and int(wanted) != port:
        return False
    name = (name if has_port else entry).removeprefix("[").removesuffix("]")
    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:
        name = name.removeprefix("*").removeprefix(".")
        return entry == "*" or (bool(name) and f".{host}".endswith(f".{name}"))


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the proxy variables that are set, as they are read: the lower-case ones first."""
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
    """Whether clients can read it: a host, a port where there is one, nothing unprintable."""
    parts = _split(proxy if "://" in proxy else f"http://{proxy}")
    is_plain = proxy.isprintable() and not any(map(str.isspace, proxy)) and len(proxy) <= MAX_CHARS
    if parts is None or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return False  # a password with / ? or # in it
    try:
        return is_plain and bool((parts.hostname or "").encode("idna"))
    except UnicodeError:
        return False


def _split(url: str) -> SplitResult | None:
    """Return None where that is no URL, or its port is no number."""
    try:
        parts = urlsplit(url)
        is_port = parts.port != 0
    except ValueError:
        return None
    return parts if is_port else None


def _kind(proxy: str) -> str:
    """The scheme; an address without one is an HTTP proxy's."""
    return proxy.partition("://")[0].lower() if "://" in proxy else "http"
