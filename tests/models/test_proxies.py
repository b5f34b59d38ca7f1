"""Through which proxy a model is fetched: an HTTP one where there is one, else what is wrong in our words."""

from pathlib import Path
from urllib.request import getproxies

import httpx2
import pytest

from pensieve.errors import ModelUnavailableError
from pensieve.models.catalog import find
from pensieve.models.fetch import fetch
from pensieve.models.progress import Unseen
from pensieve.models.proxies import usable_proxies
from pensieve.models.wheel import _last_error
from pensieve.paths import under_home
from pensieve.settings import child_environment, environment_kept, variables_without

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
def test_a_client_finds_the_http_proxy_and_no_other(variables: dict[str, str]) -> None:
    with variables_without(NAMES), environment_kept(variables):
        with usable_proxies(URL):
            httpx2.Client().close()
            kept = getproxies()
        assert not [proxy for proxy in kept.values() if "socks" in proxy]
        assert ("https" in kept) == any(name.upper() == "HTTPS_PROXY" for name in variables)
        assert variables.items() <= child_environment({}).items()


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({"ALL_PROXY": SOCKS}, "a SOCKS proxy"),
        ({"all_proxy": "SOCKS5H://127.0.0.1:1080", "HTTP_PROXY": HTTP}, "a SOCKS proxy"),
        ({"HTTPS_PROXY": SOCKS, "ALL_PROXY": HTTP}, "a SOCKS proxy"),
        ({"HTTPS_PROXY": "ftp://u:secret@proxy"}, "a proxy of the kind 'ftp'"),
    ],
)
def test_another_kind_of_proxy_is_refused_with_a_way_out(
    variables: dict[str, str], kind: str
) -> None:
    with (
        variables_without(NAMES),
        environment_kept(variables),
        pytest.raises(ModelUnavailableError) as caught,
        usable_proxies(URL),
    ):
        pytest.fail("a proxy that cannot be used was taken")
    assert f"The environment names {kind}," in caught.value.message
    assert "export HTTPS_PROXY=http://127.0.0.1:PORT" in str(caught.value.hint)
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize("model", ["smollm2-135m", "someone/tiny-model"])
def test_a_model_behind_socks_alone_is_refused_without_a_librarys_hints(
    tmp_path: Path, model: str
) -> None:
    """The real pip for the first, which has no SOCKS; the second is refused before the Hub is asked."""
    variables = {"ALL_PROXY": "socks5://127.0.0.1:1", "PIP_RETRIES": "0"}
    with (
        variables_without([*NAMES, "PIP_FIND_LINKS", "PIP_NO_INDEX", "HF_ENDPOINT"]),
        environment_kept(variables),
        pytest.raises(ModelUnavailableError) as caught,
    ):
        fetch(find(model), under_home(tmp_path), Unseen())
    assert "a SOCKS proxy" in caught.value.message
    assert "install" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("ERROR: No matching distribution\n", "No matching distribution"),
        (
            "ERROR: Exception:\nTraceback (most recent call last):\n  x\nOSError: gone\n",
            "OSError: gone",
        ),
        ("ERROR: no wheel\nERROR: try: pip install httpx[socks]\n", "no wheel"),
        ("Traceback:\nValueError: odd\n", "ValueError: odd"),
        ("\n", "it said nothing"),
    ],
)
def test_of_a_librarys_log_the_error_is_told_and_not_its_advice(log: str, said: str) -> None:
    assert _last_error(log) == said
