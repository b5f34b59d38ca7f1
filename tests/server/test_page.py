"""The page at `/`: who gets it, and what its headers and its HTML keep out."""

import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256

import httpx
import pytest

from tests.server.serving import SETTINGS, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio
ENGINE = ScriptedEngine([says("ok")])
# As Safari sends it.
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def root(headers: dict[str, str], url: str = "/", **settings: object) -> httpx.Response:
    app = app_of(ENGINE, settings=replace(SETTINGS, **settings))
    async with in_memory(app, headers) as client:
        return await client.get(url)


@pytest.mark.parametrize("host", ["localhost:7777", "127.0.0.1:7777", "[::1]:7777", "LOCALHOST"])
async def test_browser_on_this_machine_gets_the_page_without_a_key(host: str) -> None:
    response = await root({**BROWSER, "host": host})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.text.startswith("<!doctype html>")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/plain", ""])
async def test_other_clients_get_the_greeting(accept: str) -> None:
    response = await root({"accept": accept})
    assert response.text.startswith("pensieve speaks the Anthropic and OpenAI APIs")
    assert response.headers["vary"] == "accept"


async def test_browser_under_another_allowed_name_gets_the_greeting() -> None:
    response = await root({**BROWSER, "host": "mac.example"}, allowed_hosts="mac.example")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


async def test_page_is_refused_under_a_rebound_name() -> None:
    assert (await root({**BROWSER, "host": "evil.example"})).status_code == 403


async def test_policy_allows_the_pages_own_script_and_style_alone() -> None:
    response = await root(BROWSER)
    directives = dict(
        part.split(" ", 1) for part in response.headers["content-security-policy"].split("; ")
    )
    for name in ("script", "style"):
        (text,) = re.findall(rf"<{name}[^>]*>(.*?)</{name}>", response.text, re.DOTALL)
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert directives.pop(f"{name}-src") == f"'sha256-{digest}'"
    assert directives == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


async def test_page_has_headers_against_framing_sniffing_and_referrers() -> None:
    headers = (await root(BROWSER)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert (headers["cache-control"], headers["vary"]) == ("no-cache", "accept")


async def test_page_loads_nothing_and_has_no_inline_handlers() -> None:
    html = (await root(BROWSER)).text
    assert re.findall(r"\s(?:src|on[a-z]+|style)=", html) == []
    assert re.findall(r'href="(?!#|data:)', html) == []
    names = {"http://www.w3.org/2000/svg"}  # of a namespace
    assert set(re.findall(r"https?://[\w./-]+", html)) <= names
    assert "@import" not in html


async def test_script_never_writes_html() -> None:
    html = (await root(BROWSER)).text
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function"
    assert re.findall(ways, html) == []
