"""Host, Origin and key (hardening S1, S2, S4), and bodies that are not what they should be (S3, S6, S8)."""

import gzip
import json
from dataclasses import replace

import httpx
import pytest

from tests.fakes import ScriptedEngine, says
from tests.server.serving import CALL, KEY, SETTINGS, app_of, in_memory

pytestmark = pytest.mark.anyio
BODY = json.dumps(CALL).encode()
JSON = {"content-type": "application/json"}


async def ask(
    method: str = "GET", path: str = "/v1/models", *, host: str = "127.0.0.1", **options: object
) -> httpx.Response:
    settings = replace(SETTINGS, host=host)
    async with in_memory(app_of(ScriptedEngine([says("ok")]), settings=settings), {}) as client:
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
        "127.0.0.1:1",
        "[::1]",
        "[::1]:65535",
        "my-mac.lan",
    ],
)
async def test_our_own_hosts_are_let_in(host: str) -> None:
    response = await ask(headers={"host": host, "x-api-key": KEY}, host="my-mac.lan")
    assert response.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *["evil.com", "evil.com:7777", "127.0.0.1.evil.com", "localhost.evil.com", "localhost."],
        *["127.0.0.1@evil.com", "evil.com@127.0.0.1", "127.0.0.2", "0.0.0.0", "0.0.0.0:7777"],
        *["", ":7777", "localhost:", "localhost:port", "localhost:7777:7777", "localhost:999999"],
        *["::1", "[::1", "[::]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "127.1"],
        *["localhost evil.com", "localhost/", "http://localhost", "l\u00f6calhost", "localhost\t"],
    ],
)
async def test_other_hosts_are_kept_out(host: str) -> None:
    for path in ("/v1/models", "/health", "/nowhere"):
        headers = [(b"host", host.encode("latin-1")), (b"x-api-key", KEY.encode())]
        response = await ask(path=path, headers=headers, host="0.0.0.0")
        assert_refused(response, 403, "permission_error")


async def test_two_hosts_are_no_host() -> None:
    headers = [("host", "localhost"), ("host", "localhost"), ("x-api-key", KEY)]
    assert_refused(await ask(headers=headers), 403, "permission_error")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "origin",
    [
        *["null", "", "http://evil.com", "https://localhost:7777", "http://localhost"],
        *[
            "http://localhost:7778",
            "http://localhost:7777.evil.com",
            "file://",
            "chrome-extension://x",
        ],
    ],
)
async def test_web_pages_are_kept_out(origin: str, method: str) -> None:
    headers = {"origin": origin, "x-api-key": KEY, "content-type": "text/plain"}
    response = await ask(method, "/v1/messages", headers=headers, content=BODY)
    assert_refused(response, 403, "permission_error")


async def test_our_own_origin_is_let_in() -> None:
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
async def test_the_key_is_taken_from_either_header(headers: dict[str, str]) -> None:
    assert (await ask(headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "x-api-key header is required"),
        ({"x-api-key": ""}, "invalid x-api-key"),
        ({"x-api-key": KEY + "x"}, "invalid x-api-key"),
        ({"x-api-key": "k" * 65536}, "invalid x-api-key"),
        ({"x-api-key": "schl\u00fcssel".encode("latin-1")}, "invalid x-api-key"),
        ({"authorization": "Bearer other"}, "Invalid bearer token"),
        ({"authorization": f"Basic {KEY}"}, "Invalid bearer token"),
        ({"authorization": KEY}, "Invalid bearer token"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/messages", "/nowhere"])
async def test_a_missing_or_wrong_key_is_told(
    headers: dict[str, str], message: str, path: str
) -> None:
    assert assert_refused(await ask(path=path, headers=headers), 401, "authentication_error") == (
        message
    )


@pytest.mark.parametrize("path", ["/", "/health", "/api/hello"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_few_paths_need_no_key(method: str, path: str) -> None:
    assert (await ask(method, path)).status_code == 200


@pytest.mark.parametrize("path", ["/health/", "/healthz", "/Health", "/health%2F", "/health;x"])
async def test_a_path_that_only_looks_public_is_not(path: str) -> None:
    assert (await ask(path=path)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=application/json"},
        JSON | {"content-encoding": "gzip"},
    ],
)
async def test_only_plain_json_is_read(headers: dict[str, str]) -> None:
    headers = headers | {"x-api-key": KEY}
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        response = await ask("POST", path, headers=headers, content=gzip.compress(BODY))
        assert_refused(response, 400, "invalid_request_error")


async def test_a_content_type_may_name_its_charset() -> None:
    headers = {"x-api-key": KEY, "content-type": "Application/JSON ; charset=utf-8"}
    assert (await ask("POST", "/v1/messages", headers=headers, content=BODY)).status_code == 200


async def test_a_body_over_the_limit_is_refused_announced_or_not() -> None:
    headers = JSON | {"x-api-key": KEY}

    async def chunks():
        for _ in range(33):
            yield b" " * 1024 * 1024

    for options in (
        {"headers": headers | {"content-length": str(10**12)}, "content": b"{"},
        {"headers": headers, "content": chunks()},
    ):
        response = await ask("POST", "/v1/messages", **options)
        assert_refused(response, 413, "request_too_large")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[" * 10**5, b'{"max_tokens": ' + b"1" * 10**4 + b"}", b"NaN", b"[]"],
)
async def test_a_bad_body_is_a_400(body: bytes) -> None:
    headers = JSON | {"x-api-key": KEY}
    response = await ask("POST", "/v1/messages", headers=headers, content=body)
    assert_refused(response, 400, "invalid_request_error")
