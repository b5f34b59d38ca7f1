"""Adds this machine to NO_PROXY and removes it again. Pure.

Clients use a proxy even for 127.0.0.1 unless NO_PROXY excludes it. The addition to a user's own
value begins with a marker of ours, by which it is found and removed.
"""

import re
from collections.abc import Mapping

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
NAMES = ("NO_PROXY", "no_proxy")
# Reserved for loopback (RFC 6761); not found in a user's own NO_PROXY.
MARK = "pensieve.localhost"
HERE = ("127.0.0.1", "localhost")
_ADDED = re.compile(rf",?{re.escape(MARK)},(?:[^,]+,)?{re.escape(','.join(HERE))}(?=,|$)")


def exception_for(host: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that exclude `host` from proxies; none without a proxy.

    Some clients read only one of the two names, or prefer one: both are set if neither was, else
    those that were.
    """
    if not any(environ.get(name) for name in PROXIES):
        return {}
    own = {name: environ[name] for name in NAMES if environ.get(name)}
    return {name: _extended(own.get(name, ""), host) for name in own or NAMES}


def restored(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the values before `exception_for`; empty for a variable that was unset.

    Variables without an addition are left out.
    """
    found = {name: _ADDED.sub("", environ.get(name, "")) for name in NAMES}
    return {name: own for name, own in found.items() if own != environ.get(name, "")}


def _extended(own: str, host: str) -> str:
    entries = {entry.strip() for entry in own.split(",")}
    if host in entries or "*" in entries:
        return own
    added = [MARK, *([] if host in HERE else [host]), *HERE]
    return ",".join([own, *added] if own else added)
