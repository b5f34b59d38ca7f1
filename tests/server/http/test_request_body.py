"""Invalid bodies: type and encoding, size, timeouts, content."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pensieve.api.messages.request import MAX_BODY_BYTES
from pensieve.server.activity.registry import Activity
from pensieve.server.http.request_body import BodyPace, read_body
from pensieve.server.middleware.request_context import RequestMiddleware, Target
from pensieve.server.wire import ANTHROPIC
from tests.server.serving import CALL, KEY, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio
BODY = json.dumps(CALL).encode()
# The same in every process that collects the tests.
GZIPPED = gzip.compress(BODY, mtime=0)
JSON = {"content-type": "application/json"}
REQUESTS = Middleware(RequestMiddleware, target_of=lambda _: Target(ANTHROPIC), activity=Activity())


async def post(
    content: bytes | AsyncIterator[bytes],
    headers: dict[str, str] = JSON,
    path: str = "/v1/messages",
) -> httpx.Response:
    app = app_of(ScriptedEngine([says("ok")]))
    async with in_memory(app, headers | {"x-api-key": KEY}) as client:
        return await client.post(path, content=content)


def error_of(response: httpx.Response) -> dict[str, object]:
    body = response.json()
    assert (body["type"], body["request_id"]) == ("error", response.headers["request-id"])
    assert response.headers["x-should-retry"] == "false"
    return body["error"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    "content_type",
    [
        *["", "text/plain", "text/plain; application/json", "text/json", "application/jsonp"],
        *["application/x-www-form-urlencoded", "multipart/form-data; boundary=application/json"],
        *["application/json, text/plain", "application/vnd.api+json", "application"],
    ],
)
async def test_only_json_content_type_is_read(content_type: str, path: str) -> None:
    response = await post(BODY, {"content-type": content_type}, path)
    assert response.status_code == 400
    assert error_of(response) == {
        "type": "invalid_request_error",
        "message": "content-type: Input should be 'application/json'",
    }


async def test_body_without_content_type_is_refused() -> None:
    assert (await post(BODY, {})).status_code == 400


@pytest.mark.parametrize(
    "content_type",
    [
        *["application/json", "Application/JSON", "application/json;charset=utf-8"],
        *["application/json ; charset=UTF8", 'application/json; charset="utf-8"'],
        *["application/json; charset=us-ascii", "application/json; charset=ISO-8859-1"],
        *["application/json;", "application/json; version=1"],
    ],
)
async def test_json_content_type_variants_are_accepted(content_type: str) -> None:
    assert (await post(BODY, {"content-type": content_type})).status_code == 200


@pytest.mark.parametrize("charset", ["utf-16", "utf-32le", "windows-1252", "", "*"])
async def test_other_charset_is_refused_with_anthropics_code(charset: str) -> None:
    response = await post(BODY, {"content-type": f"application/json; charset={charset}"})
    assert response.status_code == 400
    assert error_of(response)["details"] == {"error_code": "unsupported_charset"}


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", GZIPPED),
        ("GZIP", GZIPPED),
        ("gzip", BODY),
        ("x-gzip", GZIPPED),
        ("deflate", zlib.compress(BODY)),
        ("br", BODY),
        ("zstd", BODY),
        ("identity, gzip", GZIPPED),
        ("gzip, gzip", gzip.compress(GZIPPED, mtime=0)),
        ("nonsense", BODY),
    ],
)
async def test_encoded_body_is_refused_with_anthropics_code(encoding: str, content: bytes) -> None:
    response = await post(content, JSON | {"content-encoding": encoding})
    error = error_of(response)
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["details"] == {"error_code": "request_body_encoding_unsupported"}


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_identity_encoding_is_accepted(encoding: str) -> None:
    assert (await post(BODY, JSON | {"content-encoding": encoding})).status_code == 200


async def spaces(count: int) -> AsyncIterator[bytes]:
    yield BODY
    for _ in range(count // 2**20):
        yield b" " * 2**20
    yield b" " * (count % 2**20)


async def test_body_at_the_limit_is_read() -> None:
    assert (await post(spaces(MAX_BODY_BYTES - len(BODY)))).status_code == 200


@pytest.mark.parametrize("length", ["33554433", "99999999999999999999999", "1" * 400])
async def test_announced_body_over_the_limit_is_not_read(length: str) -> None:
    response = await post(b"{", JSON | {"content-length": length})
    assert response.status_code == 413
    assert error_of(response) == {
        "type": "request_too_large",
        "message": "Request exceeds the maximum size",
    }


async def test_chunked_body_over_the_limit_is_not_read_further() -> None:
    response = await post(spaces(MAX_BODY_BYTES - len(BODY) + 1))
    assert (response.status_code, error_of(response)["type"]) == (413, "request_too_large")


async def test_stalled_body_times_out() -> None:
    async def endpoint(request: Request) -> Response:
        return Response(await read_body(request, pace=BodyPace(idle_s=0.01)))

    async def stalled() -> AsyncIterator[bytes]:
        yield BODY[:10]
        await anyio.sleep_forever()

    routes = [Route("/", endpoint, methods=["POST"])]
    app = Starlette(routes=routes, middleware=[REQUESTS])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        with anyio.fail_after(5):
            response = await client.post("/", content=stalled(), headers=JSON)
    assert response.status_code == 400
    assert error_of(response)["details"] == {"error_code": "request_body_timeout"}


async def test_dripping_body_times_out() -> None:
    pace = BodyPace(idle_s=5, grace_s=0.05, bytes_per_s=1e12)

    async def endpoint(request: Request) -> Response:
        return Response(await read_body(request, pace=pace))

    async def dripping() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await anyio.lowlevel.checkpoint()

    routes = [Route("/", endpoint, methods=["POST"])]
    app = Starlette(routes=routes, middleware=[REQUESTS])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        with anyio.fail_after(5):
            response = await client.post("/", content=dripping(), headers=JSON)
    assert response.status_code == 400
    error = error_of(response)
    assert "fewer than 1e+12 bytes arrived per second" in str(error["message"])
    assert error["details"] == {"error_code": "request_body_timeout"}


def test_largest_body_has_time_on_a_slow_network() -> None:
    pace = BodyPace()
    assert pace.allowed_s(0) == 60
    assert pace.allowed_s(MAX_BODY_BYTES) > 500


def mutated(text: str, before: str, after: str) -> bytes:
    assert before in text
    return text.replace(before, after).encode("utf-8", "surrogatepass")


TEXT = json.dumps(CALL)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        BODY[:-1],
        BODY + b"x",
        BODY + b"\0",
        b"\xef\xbb\xbf" + BODY,
        TEXT.encode("utf-16"),
        TEXT.encode("utf-32"),
        BODY.replace(b"hello", b"\xff"),
        BODY.replace(b"hello", b"\xc3"),
        BODY.replace(b"hello", b"a\0b"),
        mutated(TEXT, "50", "NaN"),
        mutated(TEXT, "50", "-Infinity"),
        mutated(TEXT, "50", "1e999"),
        mutated(TEXT, "50", "050"),
        mutated(TEXT, "{", '{"max_tokens": 1, '),
        mutated(TEXT, '"any"', '"any", "mod\\u0065l": "b"'),
        mutated(TEXT, '"role"', '"content": "a", "role"'),
        mutated(TEXT, "50", "50, " + '"x": ' + "[" * 64 + "]" * 64),
        mutated(TEXT, "50", "50, " + '"x": ' + '{"a": ' * 100_000),
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"[" + b"0," * 2_000_000 + b"0]",
    ],
)
async def test_invalid_json_is_refused(content: bytes) -> None:
    response = await post(content)
    assert response.status_code == 400
    message = error_of(response)["message"]
    assert isinstance(message, str)
    assert message.startswith("The request body is not valid JSON: ")
    assert len(message) < 200


@pytest.mark.parametrize(
    ("digits", "reason"),
    [
        ("1" * 20, "should be less than or equal to 9223372036854775807"),
        ("-" + "9" * 5000, "should have at most 4300 digits"),
    ],
)
async def test_long_integer_is_refused_by_its_field(digits: str, reason: str) -> None:
    response = await post(mutated(TEXT, "50", digits))
    assert response.status_code == 400
    assert error_of(response)["message"] == f"max_tokens: Input {reason}"


@pytest.mark.parametrize("content", [b"[]", b"[" + BODY + b"]", b"7", b"null", b'"text"', b"true"])
async def test_json_that_is_no_object_is_refused(content: bytes) -> None:
    response = await post(content)
    assert response.status_code == 400
    assert error_of(response)["message"] == "Input should be an object"


async def test_odd_text_is_accepted() -> None:
    text = "\0\x1b[31m\u2028\ufdd0\uffff\U0010ffff\u202e<|end|>\r\n"
    messages = [{"role": "user", "content": text}]
    assert (await post(json.dumps(CALL | {"messages": messages}).encode())).status_code == 200
