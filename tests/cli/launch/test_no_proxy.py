"""Clients with a proxy reach this machine, and a user's own NO_PROXY is restored."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.cli.launch.no_proxy import NAMES, PROXIES, exception_for, restored
from pensieve.settings.resolve import variables_set
from tests.cli.fake_server import serving

PROXY = "http://127.0.0.1:1"
ADDED = "pensieve.localhost,127.0.0.1,localhost"
ENTRY = st.sampled_from(["corp.example", ".lan", "10.0.0.0/8", "localhost", "::1", "", " ", "*"])
OWN = st.one_of(st.none(), st.lists(ENTRY, max_size=4).map(",".join), st.text(max_size=8))


@pytest.mark.parametrize("proxy", PROXIES)
def test_both_names_are_set_where_a_proxy_is_and_neither_was(proxy: str) -> None:
    assert exception_for("127.0.0.1", {proxy: PROXY}) == dict.fromkeys(NAMES, ADDED)


def test_nothing_is_set_without_a_proxy() -> None:
    """Python reads NO_PROXY alone as a proxy configuration, and then ignores that of macOS."""
    assert exception_for("127.0.0.1", {"HTTP_PROXY": "", "NO_PROXY": "corp.example"}) == {}


@pytest.mark.parametrize(
    ("own", "extended"),
    [
        ("corp.example", f"corp.example,{ADDED}"),
        ("localhost", f"localhost,{ADDED}"),
        ("corp.example, 127.0.0.1", "corp.example, 127.0.0.1"),
        ("*", "*"),
        (f"corp.example,{ADDED}", f"corp.example,{ADDED}"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_users_own_value_is_kept_and_extended(name: str, own: str, extended: str) -> None:
    assert exception_for("127.0.0.1", {"https_proxy": PROXY, name: own}) == {name: extended}


def test_another_host_is_excepted_too() -> None:
    assert exception_for("192.168.1.5", {"HTTP_PROXY": PROXY})["NO_PROXY"] == (
        "pensieve.localhost,192.168.1.5,127.0.0.1,localhost"
    )


def test_entries_that_came_later_stay() -> None:
    assert restored({"NO_PROXY": f"mine,{ADDED},later"}) == {"NO_PROXY": "mine,later"}


@given(st.tuples(OWN, OWN), st.sampled_from(["127.0.0.1", "localhost", "::1", "192.168.1.5"]))
def test_restoring_reverts_only_our_addition(own: tuple[str | None, str | None], host: str) -> None:
    before = {name: value for name, value in zip(NAMES, own, strict=True) if value}
    environ = {"HTTP_PROXY": PROXY, **before}
    once = environ | exception_for(host, environ)
    twice = once | exception_for(host, once)
    assert twice == once
    after = once | restored(once)
    assert {name: value for name, value in after.items() if value} == environ
    assert restored(environ) == {}


@pytest.mark.parametrize("own", ["", "corp.example"])
def test_client_with_proxy_variables_reaches_the_server(own: str) -> None:
    proxied = {"HTTP_PROXY": PROXY, "ALL_PROXY": PROXY, "NO_PROXY": own, "no_proxy": own}
    with serving() as server:
        with variables_set(proxied), pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")
        with variables_set(proxied | exception_for("127.0.0.1", proxied)):
            assert httpx.get(f"{server.url}/health").status_code == 200
