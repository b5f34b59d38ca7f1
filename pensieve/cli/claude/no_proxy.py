"""NO_PROXY with this machine in it, and as it was. Pure.

Clients ask a proxy for 127.0.0.1 too where NO_PROXY does not except it. What is added to a
user's own value begins with a name of ours, by which it is found and taken out again.
"""

import re
from collections.abc import Mapping

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
NAMES = ("NO_PROXY", "no_proxy")
# Reserved for loopback (RFC 6761), and in nobody's own NO_PROXY.
MARK = "pensieve.localhost"
HERE = ("127.0.0.1", "localhost")
_ADDED = re.compile(rf",?{re.escape(MARK)},(?:[^,]+,)?{re.escape(','.join(HERE))}(?=,|$)")


def exception_for(host: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep clients from asking a proxy for `host`; none without a proxy.

    Some clients read only one of the two names, or that one first: both are set where neither
    was, else those that were.
    """
    if not any(environ.get(name) for name in PROXIES):
        return {}
    own = {name: environ[name] for name in NAMES if environ.get(name)}
    return {name: _extended(own.get(name, ""), host) for name in own or NAMES}


def restored(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the variables were before `exception_for`; empty where there was none.

    Those that nothing was added to are not among them.
    """
    found = {name: _ADDED.sub("", environ.get(name, "")) for name in NAMES}
    return {name: own for name, own in found.items() if own != environ.get(name, "")}


def _extended(own: str, host: str) -> str:
    entries = {entry.strip() for entry in own.split(",")}
    if host in entries or "*" in entries:
        return own
    added = [MARK, *([] if host in HERE else [host]), *HERE]
    return ",".join([own, *added] if own else added)
