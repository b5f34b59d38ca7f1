"""The proxy of a download: an HTTP one if there is one, else an error of our own."""

from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import httpx2
import pytest

from pensieve.errors import ModelUnavailableError
from pensieve.models.catalog.find import find
from pensieve.models.demo.wheel import _last_error
from pensieve.models.fetching.fetch import fetch
from pensieve.models.fetching.hub import HubInterruptedError
from pensieve.models.fetching.progress import SilentProgress
from pensieve.models.fetching.proxies import is_excepted, malformed, usable_proxies
from pensieve.paths import under_home
from pensieve.settings.resolve import child_environment, environment_restored, variables_without

HTTP, SOCKS = "http://127.0.0.1:7899", "socks5://user:secret@127.0.0.1:1080"
URL = "https://hub.example/api"
LOWER = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
NAMES = [*LOWER, *(name.upper() for name in LOWER)]


@pytest.mark.parametrize(
    "variables",
    [
        {"HTTPS_PROXY": HTTP, "ALL_PROXY": SOCKS},
        {"https_proxy": "127.0.0.1:7899", "all_proxy": "socks5h://127.0.0.1:1080"},
        {"HTTPS_PROXY": HTTP, "http_proxy": SOCKS, "ALL_PROXY": "socks4://127.0.0.1:1080"},
        {"ALL_PROXY": SOCKS, "NO_PROXY": "hub.example"},
        {"ALL_PROXY": SOCKS, "no_proxy": "*"},
        {"ALL_PROXY": HTTP},
        {},
    ],
)
def test_libraries_see_only_the_http_proxy(variables: dict[str, str]) -> None:
    with variables_without(NAMES), environment_restored(variables):
        with usable_proxies(URL):
            httpx2.Client().close()
            proxies = getproxies()
        assert not [proxy for proxy in proxies.values() if "socks" in proxy]
        assert ("https" in proxies) == any(name.upper() == "HTTPS_PROXY" for name in variables)
        assert variables.items() <= child_environment({}).items()


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({"ALL_PROXY": SOCKS}, "a SOCKS proxy"),
        ({"all_proxy": "SOCKS5H://127.0.0.1:1080", "HTTP_PROXY": HTTP}, "a SOCKS proxy"),
        ({"HTTPS_PROXY": SOCKS, "ALL_PROXY": HTTP}, "a SOCKS proxy"),
        ({"HTTPS_PROXY": "ftp://u:secret@proxy"}, "a proxy of another kind"),
        ({"https_proxy": "secret://proxy"}, "a proxy of another kind"),
        ({"HTTPS_PROXY": "socks4a://u:secret@proxy", "NO_PROXY": "hub"}, "a SOCKS proxy"),
    ],
)
def test_another_kind_of_proxy_is_refused_with_advice(variables: dict[str, str], kind: str) -> None:
    with (
        variables_without(NAMES),
        environment_restored(variables),
        pytest.raises(ModelUnavailableError) as caught,
        usable_proxies(URL),
    ):
        pytest.fail("a proxy that cannot be used was taken")
    assert f"The environment names {kind}," in caught.value.message
    assert "export HTTPS_PROXY=http://127.0.0.1:PORT" in str(caught.value.hint)
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"


# A password can contain anything, and a malformed address can be a password.
MALFORMED = [
    "http://u:secret@proxy:port",
    "http://u:secret@proxy:99999",
    "http://u:secret@[::1:9",
    "http://u:secret#1@proxy:9",
    "http://u:1/secret@proxy:9",
    " http://u:secret@proxy:9",
    "http://u:secret@proxy:9\n",
    "http://u:secret@pro xy:9",
    "http://u:secret@a..b:9",
    "http://u:secret@\udc80:9",
    "http://u:secret@",
    "http://",
    "://secret",
    "http:secret:9",
    "http://u:secret@proxy:0",
    f"http://u:{'secret' * 500}@proxy:9",
]


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_proxy_is_refused_by_variable_and_not_shown(name: str, value: str) -> None:
    with (
        variables_without(NAMES),
        environment_restored({name: value}),
        pytest.raises(ModelUnavailableError) as caught,
        usable_proxies(URL),
    ):
        pytest.fail("a proxy that is no address was taken")
    assert f"The proxy in {name} is not an address" in caught.value.message
    assert "export HTTPS_PROXY=http://127.0.0.1:PORT" in str(caught.value.hint)
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize("value", MALFORMED)
def test_an_unrelated_malformed_proxy_is_hidden_from_the_library(value: str) -> None:
    with variables_without(NAMES), environment_restored({"HTTPS_PROXY": HTTP, "http_proxy": value}):
        with usable_proxies(URL):
            httpx2.Client().close()
            assert getproxies() == {"https": HTTP}
        assert malformed(child_environment({}))


@pytest.mark.parametrize(
    "value", [HTTP, "proxy", "proxy:1", "u:p%23@proxy:1", "http://u:p@[::1]:9", "HTTPS://h"]
)
def test_a_proxy_address_is_accepted_with_or_without_scheme(value: str) -> None:
    with variables_without(NAMES), environment_restored({"ALL_PROXY": value}):
        assert malformed(child_environment({})) is None
        with usable_proxies(URL):
            httpx2.Client().close()


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "is_direct"),
    [
        ("*", "hub.example", 443, True),
        ("hub.example", "hub.example", 443, True),
        (" a.example , HUB.example ", "hub.example", 443, True),
        ("example", "hub.example", 443, True),
        (".example", "hub.example", 443, True),
        ("*.example", "hub.example", 443, True),
        ("ub.example", "hub.example", 443, False),
        ("hub.example:443", "hub.example", 443, True),
        ("hub.example:80", "hub.example", 443, False),
        (".example:8443", "hub.example", 8443, True),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "11.1.2.3", 80, False),
        ("10.1.2.3:80", "10.1.2.3", 80, True),
        ("::1", "::1", 80, True),
        ("[::1]", "::1", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("[::1]:81", "::1", 80, False),
        ("fe80::/10", "fe80::1", 80, True),
        ("fe80::/10", "10.1.2.3", 80, False),
        ("", "hub.example", 443, False),
        (",.,*.,:443,[", "hub.example", 443, False),
    ],
)
def test_no_proxy_is_read_in_every_form_that_clients_know(
    no_proxy: str, host: str, port: int, is_direct: bool
) -> None:
    assert is_excepted(host, port, no_proxy) is is_direct


@pytest.mark.parametrize("no_proxy", ["10.0.0.0/8", "10.1.2.3:8080", "*"])
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_an_exception_is_translated_for_the_library(name: str, no_proxy: str) -> None:
    with variables_without(NAMES), environment_restored({"ALL_PROXY": SOCKS, name: no_proxy}):
        with usable_proxies("http://10.1.2.3:8080"):
            assert proxy_bypass("10.1.2.3")
            assert getproxies()["no"].startswith(no_proxy)
        assert child_environment({})[name] == no_proxy


def test_an_unreachable_hub_names_the_proxy() -> None:
    with (
        variables_without(NAMES),
        environment_restored({"https_proxy": "http://u:secret@127.0.0.1:9"}),
        pytest.raises(HubInterruptedError) as caught,
        usable_proxies(URL),
    ):
        raise HubInterruptedError("Connection refused.", hint="Check the network.")
    assert caught.value.hint == (
        "The request goes through the proxy in https_proxy.\nCheck the network."
    )


@pytest.mark.parametrize("model", ["smollm2-135m", "someone/tiny-model"])
def test_a_socks_only_environment_raises_without_a_librarys_advice(
    tmp_path: Path, model: str
) -> None:
    """The first case runs the real pip, which lacks SOCKS; the second is refused before any
    request.
    """
    variables = {"ALL_PROXY": "socks5://127.0.0.1:1", "PIP_RETRIES": "0"}
    with (
        variables_without([*NAMES, "PIP_FIND_LINKS", "PIP_NO_INDEX", "HF_ENDPOINT"]),
        environment_restored(variables),
        pytest.raises(ModelUnavailableError) as caught,
    ):
        fetch(find(model), under_home(tmp_path), SilentProgress())
    assert "a SOCKS proxy" in caught.value.message
    assert "install" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("ERROR: No matching distribution\n", "No matching distribution"),
        (
            "ERROR: Exception:\nTraceback (most recent call last):\n  x\nOSError: gone\n",
            "OSError: gone",
        ),
        ("ERROR: no wheel\nERROR: try: pip install httpx[socks]\n", "no wheel"),
        ("Traceback:\nValueError: odd\n", "ValueError: odd"),
        ("ERROR: no http://u:secret@proxy:9/ there\n", "no http://proxy:9/ there"),
        ("\n", "it printed nothing"),
    ],
)
def test_the_last_error_of_a_log_omits_advice(log: str, error: str) -> None:
    assert _last_error(log) == error
