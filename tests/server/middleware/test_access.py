"""Host, Origin and key. test_hostile.py sends the same over raw sockets."""

import json
import re
from dataclasses import replace
from itertools import product

import anyio
import httpx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from pensieve.peer_proof import CHALLENGE_HEADER, PROOF_FIELD, Prover, new_challenge
from pensieve.settings.resolve import Settings
from tests.server.serving import CALL, KEY, SETTINGS, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio
BODY = json.dumps(CALL).encode()
KEY_REQUIRED = replace(SETTINGS, require_key="on")


async def ask(
    method: str = "GET",
    path: str = "/v1/models",
    *,
    host: str = "127.0.0.1",
    settings: Settings = KEY_REQUIRED,
    **options: object,
) -> httpx.Response:
    settings = replace(settings, host=host)
    app = app_of(ScriptedEngine([says("ok")]), settings=settings)
    async with in_memory(app, {"anthropic-version": "2023-06-01"}) as client:
        return await client.request(method, path, **options)


def assert_refused(response: httpx.Response, status: int, kind: str) -> str:
    body = response.json()
    assert (response.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert body["request_id"] == response.headers["request-id"]
    assert response.headers["x-should-retry"] == "false"
    assert not [name for name in response.headers if name.startswith("access-control")]
    return body["error"]["message"]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:7777",
        "127.0.0.1",
        "127.0.0.1:7777",
        "[::1]",
        "[::1]:07777",
        "my-mac.lan",
    ],
)
async def test_own_hosts_are_allowed(host: str) -> None:
    response = await ask(headers={"host": host, "x-api-key": KEY}, host="my-mac.lan")
    assert response.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *["evil.com", "evil.com:7777", "127.0.0.1.evil.com", "localhost.evil.com", "localhost."],
        *["127.0.0.1@evil.com", "evil.com@127.0.0.1", "127.0.0.2", "0.0.0.0", "0.0.0.0:7777"],
        *["", ":7777", "localhost:", "localhost:port", "localhost:7777:7777", "localhost:999999"],
        *["::1", "[::1", "[::]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "127.1"],
        *["localhost:80", "127.0.0.1:7778", "[::1]:65535", "localhost:77", "localhost:00000"],
        *["localhost evil.com", "localhost/", "http://localhost", "l\u00f6calhost", "localhost\t"],
    ],
)
async def test_other_hosts_are_refused(host: str) -> None:
    for path in ("/v1/models", "/health", "/nowhere"):
        headers = [(b"host", host.encode("latin-1")), (b"x-api-key", KEY.encode())]
        response = await ask(path=path, headers=headers, host="0.0.0.0")
        assert_refused(response, 403, "permission_error")


async def test_two_host_headers_are_refused() -> None:
    headers = [("host", "localhost"), ("host", "localhost"), ("x-api-key", KEY)]
    assert_refused(await ask(headers=headers), 403, "permission_error")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "origin",
    [
        *[
            "null",
            "Null",
            "",
            " ",
            "http://evil.com",
            "http://evil.com:7777",
            "https://localhost:7777",
        ],
        *[
            "http://localhost",
            "http://localhost:80",
            "http://localhost:7778",
            "http://localhost:77770",
        ],
        *[
            "http://localhost:7777.evil.com",
            "http://localhost:7777@evil.com",
            "http://localhost:7777/",
        ],
        *["http://localhost:7777/v1", "http://user@localhost:7777", "http://127.0.0.1:7777"],
        *["http://[::1]:7777", "http://localhost.:7777", "http://sub.localhost:7777"],
        *["ws://localhost:7777", "localhost:7777", "//localhost:7777", "http:localhost:7777"],
        *["file://", "data:,", "about:blank", "chrome-extension://abcdefgh", "moz-extension://x"],
        *[
            "vscode-webview://x",
            "http://localhost:7777, http://evil.com",
            "http://l\u00f6calhost:7777",
        ],
        *["http://localhost:7777 ", "capacitor://localhost"],
    ],
)
async def test_foreign_origins_are_refused(origin: str, method: str) -> None:
    sent = [(b"origin", origin.encode()), (b"x-api-key", KEY.encode())]
    for content_type in (b"text/plain", b"application/json"):
        headers = [*sent, (b"content-type", content_type)]
        response = await ask(method, "/v1/messages", headers=headers, content=BODY)
        assert_refused(response, 403, "permission_error")


@pytest.mark.parametrize(
    ("origin", "hint"),
    [
        (
            "http://localhost:3000",
            " To allow it: pensieve config set allowed_origins http://localhost:3000, then pensieve"
            " restart.",
        ),
        ("null", ""),
        ("http://a; rm -rf /", ""),
        ("http://" + "a" * 100, ""),
    ],
)
async def test_refused_page_is_shown_the_setting_that_allows_it(origin: str, hint: str) -> None:
    async with in_memory(app_of(ScriptedEngine([]))) as client:
        response = await client.post("/v1/messages", json=CALL, headers={"origin": origin})
    assert response.json()["error"]["message"] == (
        f"Requests from web pages are not allowed.{hint}"
    )


async def test_two_origin_headers_are_refused() -> None:
    headers = [("x-api-key", KEY), ("origin", "http://localhost:7777"), ("origin", "null")]
    assert_refused(await ask(headers=headers), 403, "permission_error")


async def test_foreign_preflight_is_refused() -> None:
    headers = {
        "origin": "http://evil.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key",
        "access-control-request-private-network": "true",
    }
    assert_refused(await ask("OPTIONS", "/v1/messages", headers=headers), 403, "permission_error")


DOCKER = replace(
    SETTINGS,
    allowed_hosts="host.docker.internal, Host.Orb.internal,192.168.65.254",
    allowed_origins="http://localhost:3000,chrome-extension://abc",
)


async def ask_there(
    method: str, *, host: str = "localhost", **headers: str
) -> tuple[int, httpx.Headers]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"host": host, "content-type": "application/json", **named}
    async with in_memory(
        app_of(ScriptedEngine([says("ok")]), settings=DOCKER), {"x-api-key": KEY}
    ) as client:
        response = await client.request(method, "/v1/messages", headers=sent, content=BODY)
    return response.status_code, response.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *[("host.docker.internal", 200), ("HOST.docker.internal:7777", 200), ("localhost", 200)],
        *[("host.orb.internal:7777", 200), ("192.168.65.254:7777", 200)],
        *[("host.docker.internal:80", 403), ("a.host.docker.internal", 403)],
        *[("host.docker.internal.evil.com", 403), ("docker.internal", 403), ("evil.com", 403)],
        *[("host.docker.internal.", 403), ("host.docker.internal,localhost", 403)],
    ],
)
async def test_configured_hosts_are_allowed_exactly(host: str, status: int) -> None:
    assert (await ask_there("POST", host=host))[0] == status


async def test_refused_host_error_names_the_fixing_command() -> None:
    response = await ask(headers={"host": "host.docker.internal:7777", "x-api-key": KEY})
    assert assert_refused(response, 403, "permission_error") == (
        "The Host header does not name this server. To let it in:"
        " pensieve config set allowed_hosts host.docker.internal, then pensieve restart."
    )


@pytest.mark.parametrize("origin", ["http://localhost:3000", "chrome-extension://abc"])
async def test_configured_origin_may_send_and_read(origin: str) -> None:
    status, headers = await ask_there("POST", origin=origin)
    assert (status, headers["access-control-allow-origin"], headers["vary"]) == (
        200,
        origin,
        "origin",
    )
    status, headers = await ask_there(
        "OPTIONS",
        origin=origin,
        access_control_request_method="POST",
        access_control_request_headers="x-api-key, content-type",
    )
    assert (status, headers.get_list("access-control-allow-origin")) == (204, [origin])
    assert headers["access-control-allow-headers"] == "x-api-key, content-type"
    status, headers = await ask_there("POST", origin=origin, x_api_key="wrong")
    assert (status, headers["access-control-allow-origin"]) == (401, origin)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("vscode-webview://0l2v8r3k", 200),
        ("VSCODE-webview://x", 200),
        ("vscode-webviewer://x", 403),
        ("http://vscode-webview://x", 403),
        ("vscode-webview", 403),
        ("null", 403),
    ],
)
async def test_every_origin_of_a_configured_scheme_is_allowed(origin: str, status: int) -> None:
    headers = {"origin": origin, "x-api-key": KEY}
    assert await status_of(headers, allowed_origins="vscode-webview://*") == status


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3001",
        "http://127.0.0.1:3000",
        "https://localhost:3000",
        "null",
        "http://evil.com",
    ],
)
async def test_other_origin_is_refused_next_to_configured_ones(origin: str) -> None:
    status, headers = await ask_there("POST", origin=origin)
    assert status == 403
    assert "access-control-allow-origin" not in headers


async def test_own_origin_is_allowed() -> None:
    headers = {"origin": "http://localhost:7777", "x-api-key": KEY}
    assert (await ask(headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": KEY},
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"x-api-key": "other", "authorization": f"Bearer {KEY}"},
        {"x-api-key": KEY, "authorization": "Bearer other"},
    ],
)
async def test_key_is_accepted_from_either_header(headers: dict[str, str]) -> None:
    assert (await ask(headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "x-api-key header is required"),
        ({"x-api-key": ""}, "x-api-key header is required"),
        ({"authorization": "Bearer "}, "x-api-key header is required"),
        ({"x-api-key": KEY + "x"}, "invalid x-api-key"),
        ({"x-api-key": "k" * 65536}, "invalid x-api-key"),
        ({"x-api-key": "schl\u00fcssel".encode("latin-1")}, "invalid x-api-key"),
        ({"authorization": "Bearer other"}, "Invalid bearer token"),
        ({"authorization": f"Basic {KEY}"}, "Invalid bearer token"),
        ({"authorization": KEY}, "Invalid bearer token"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/messages", "/nowhere"])
async def test_missing_or_wrong_key_is_refused(
    headers: dict[str, str], message: str, path: str
) -> None:
    assert assert_refused(await ask(path=path, headers=headers), 401, "authentication_error") == (
        message
    )


OWN_KEY = "0123456789abcdef" * 2
PUBLIC = {"/", "/health", "/metrics", "/api/hello", "/openapi.json"}
KEYLESS = [
    {},
    {"x-api-key": ""},
    {"api-key": ""},
    {"authorization": "Bearer "},
    {"authorization": "", "sec-fetch-mode": "cors"},
    {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
]
WRONG = [
    {"x-api-key": "other"},
    {"api-key": "other"},
    {"authorization": "Bearer other"},
    {"authorization": "Basic b3RoZXI="},
    {"x-api-key": "", "authorization": "Bearer other"},
]
OF_PAGES = [
    {"origin": "http://localhost:7777"},
    {"origin": "http://localhost:3000"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "same-origin"},
    {"sec-fetch-site": ""},
]


async def status_of(headers: dict[str, str], path: str = "/v1/models", **changed: str) -> int:
    changed = {"allowed_origins": "http://localhost:3000", **changed}
    settings, host = replace(SETTINGS, **changed), changed.get("host", "127.0.0.1")
    return (await ask(path=path, headers=headers, settings=settings, host=host)).status_code


@pytest.mark.parametrize("headers", KEYLESS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
@pytest.mark.parametrize("mode", ["auto", "off"])
async def test_programs_need_no_key_while_it_is_the_default_one_on_loopback(
    headers: dict[str, str], host: str, mode: str
) -> None:
    assert await status_of(headers, host=host, require_key=mode) == 200
    assert await status_of(headers, "/nowhere", host=host, require_key=mode) == 404


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/v1/models"])
async def test_page_of_another_site_cannot_ask_without_reading_the_answer(path: str) -> None:
    for site, mode, status in (
        ("cross-site", "no-cors", 403),
        ("same-site", "no-cors", 403),
        ("same-origin", "no-cors", 200),
        ("cross-site", "navigate", 200),  # a link
    ):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "x-api-key": KEY}
        assert (site, mode, await status_of(headers, path)) == (site, mode, status)


async def test_every_route_but_the_public_ones_refuses_a_wrong_key_and_pages_without_one() -> None:
    app = app_of(ScriptedEngine([says("ok")]))
    refused = {"wrong": {"x-api-key": "wrong"}, "page": {"sec-fetch-site": "cross-site"}}
    statuses: dict[str, set[int]] = {"none": set(), "wrong": set(), "page": set()}
    async with in_memory(app, {}) as client:
        for route in app.routes:
            assert isinstance(route, Route)
            if route.path in PUBLIC:
                continue
            path = re.sub(r"{\w+(:path)?}", "x", route.path)
            for method, name in product(route.methods or (), statuses):
                response = await client.request(method, path, headers=refused.get(name, {}))
                statuses[name].add(response.status_code)
    assert statuses["wrong"] == statuses["page"] == {401}
    assert statuses["none"] == {200, 400, 404}


@pytest.mark.parametrize("headers", WRONG)
async def test_wrong_key_is_refused_where_none_would_do(headers: dict[str, str]) -> None:
    assert await status_of(headers) == 401
    assert await status_of({**headers, "api-key": KEY}) == 200


@pytest.mark.parametrize("headers", [*KEYLESS, *WRONG])
@pytest.mark.parametrize("key", [KEY, OWN_KEY])
async def test_key_is_not_looked_at_where_it_is_off(headers: dict[str, str], key: str) -> None:
    assert await status_of(headers, require_key="off", api_key=key) == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"require_key": "on"},
        {"api_key": OWN_KEY},
        {"host": "0.0.0.0"},
        {"host": "my-mac.lan"},
        {"host": "0.0.0.0", "require_key": "off"},
    ],
)
async def test_key_is_required_elsewhere(changed: dict[str, str]) -> None:
    headers = {"host": "localhost"}
    assert await status_of(headers, **changed) == 401
    assert await status_of({**headers, "x-api-key": changed.get("api_key", KEY)}, **changed) == 200


@pytest.mark.parametrize("headers", OF_PAGES)
@pytest.mark.parametrize("mode", ["auto", "off"])
async def test_page_needs_the_key_where_programs_do_not(headers: dict[str, str], mode: str) -> None:
    assert await status_of(headers, require_key=mode) == 401
    assert await status_of({**headers, "x-api-key": "other"}, require_key=mode) == 401
    assert await status_of({**headers, "x-api-key": KEY}, require_key=mode) == 200


@pytest.mark.parametrize(("mode", "status"), [("auto", 401), ("off", 200)])
async def test_key_is_required_under_another_name_unless_it_is_off(mode: str, status: int) -> None:
    """Such a name could be rebound, so only loopback's own ones count as this machine."""
    names = {"allowed_hosts": "host.docker.internal", "require_key": mode}
    assert await status_of({"host": "host.docker.internal:7777"}, **names) == status
    assert await status_of({"host": "localhost:7777"}, **names) == 200


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/api/hello"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_public_paths_need_no_key(method: str, path: str) -> None:
    assert (await ask(method, path)).status_code == 200


@pytest.mark.parametrize("path", ["/health/", "/healthz", "/Health", "/health%2F", "/health;x"])
async def test_path_that_resembles_a_public_one_needs_a_key(path: str) -> None:
    assert (await ask(path=path)).status_code == 401


@given(st.binary(max_size=80), st.sampled_from(["x-api-key", "authorization"]))
@settings(max_examples=200)
def test_any_other_key_is_refused(key: bytes, header: str) -> None:
    """Any bytes that a header can contain are compared without raising."""

    async def status() -> int:
        return (await ask(headers=[(header.encode(), key)])).status_code

    assert anyio.run(status) == 401


@given(st.integers(0, len(KEY) - 1), st.characters(min_codepoint=33, max_codepoint=126))
@settings(max_examples=50)
def test_key_with_one_changed_character_is_refused(offset: int, char: str) -> None:
    changed = KEY[:offset] + char + KEY[offset + 1 :]
    assume(changed != KEY)

    async def status() -> int:
        return (await ask(headers={"x-api-key": changed})).status_code

    assert anyio.run(status) == 401


async def test_proof_verifies_and_does_not_reveal_the_key() -> None:
    challenge = new_challenge()
    async with in_memory(app_of(ScriptedEngine([says("ok")])), headers={}) as client:
        response = await client.get("/health", headers={CHALLENGE_HEADER: challenge})
        unchallenged = await client.get("/health")
        odd = await client.get("/health", headers={CHALLENGE_HEADER: "give me the key"})
    assert Prover(KEY).is_proof(response.json()[PROOF_FIELD], challenge, 7777)
    assert KEY not in response.text
    assert PROOF_FIELD not in unchallenged.json()
    assert odd.json()[PROOF_FIELD] == ""
