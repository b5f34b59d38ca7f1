"""Which proxy a download goes through, decided before any library looks.

Programs that set a proxy for macOS export HTTPS_PROXY and ALL_PROXY=socks5://… together. httpx
fails at the second although the first is enough, and pip has no SOCKS at all: both then say what
to install into an environment that is ours. So SOCKS proxies are left out where an HTTP proxy
does, and refused in our words where there is no other.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pensieve.errors import ModelUnavailableError
from pensieve.settings import child_environment, variables_without

_HTTP = {"http", "https"}


@contextmanager
def usable_proxies(url: str) -> Generator[None]:
    """Within the block, libraries and children find those proxies only that can be used.

    url: what is to be fetched. Raises `ModelUnavailableError` where its proxy is of another kind.
    """
    chosen = _chosen(url)
    if chosen and _kind(chosen) not in _HTTP:
        raise refused(_kind(chosen))
    with variables_without(_unusable(child_environment({}))):
        yield


def refused(kind: str = "socks") -> ModelUnavailableError:
    """What to say of a proxy; its address may hold a password and is not repeated."""
    name = "a SOCKS proxy" if kind.startswith("socks") else f"a proxy of the kind {kind[:20]!r}"
    return ModelUnavailableError(
        f"The environment names {name}, and models are fetched through HTTP proxies only.",
        hint="Most programs with a SOCKS port have an HTTP port too. With that one, or without any:\n"
        "  export HTTPS_PROXY=http://127.0.0.1:PORT\n"
        "  unset ALL_PROXY all_proxy HTTPS_PROXY https_proxy",
    )


def _chosen(url: str) -> str:
    """The proxy that clients take for it; empty for none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    proxies = getproxies()
    is_direct = proxy_bypass(parts.hostname or "")
    return "" if is_direct else proxies.get(parts.scheme) or proxies.get("all") or ""


def _unusable(environ: Mapping[str, str]) -> list[str]:
    return [
        name
        for name, value in environ.items()
        if name.lower() in {"http_proxy", "https_proxy", "all_proxy"}
        and value
        and _kind(value) not in _HTTP
    ]


def _kind(proxy: str) -> str:
    """The scheme; an address without one is an HTTP proxy's."""
    return proxy.partition("://")[0].lower() if "://" in proxy else "http"
