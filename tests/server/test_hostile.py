"""Hostile clients over real sockets: Host, heads and framing, timeouts, disconnects,
clients that do not read.
"""

import asyncio
import json
import sys
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from pathlib import Path
from socket import SO_RCVBUF, SOL_SOCKET

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream

from pensieve.engine.generation import EngineEvent, Generation, Prefilled, Started, Token
from pensieve.server.http.connection_limits import MAX_HEAD_BYTES, MAX_HEADERS, ConnectionTimeouts
from tests.server.raw import (
    BODY,
    CALL_BYTES,
    HOST,
    JSON_LINE,
    KEY_LINE,
    LENGTH,
    Raw,
    ask,
    call_bytes,
    connect,
    head,
    is_closed,
    response_of,
)
from tests.server.serving import app_of, listening
from tests.support.fakes import ScriptedEngine, says
from tests.support.programs import run_program

pytestmark = pytest.mark.anyio
CHUNKED = b"transfer-encoding: chunked"


async def outcome(sent: bytes) -> tuple[Raw, int]:
    """Return the response to `sent`, and how many calls reached the engine.

    The server still answers.
    """
    engine = ScriptedEngine([says("ok")])
    async with listening(app_of(engine)) as url:
        response = await ask(url, sent)
        reached = len(engine.generations)
        assert (await ask(url, CALL_BYTES)).status == 200
    return response, reached


FOREIGN_HOSTS = [
    *[b"evil.com", b"evil.com:7777", b"EVIL.COM", b"xn--evil-1na.com", b"localhost.evil.com"],
    *[b"127.0.0.1.evil.com", b"127.0.0.1.nip.io", b"evil.com.", b"evil.com#localhost"],
    *[b"localhost.", b"127.0.0.1.", b"localhost.:7777", b"localhost..", b".localhost"],
    *[b"localhost@evil.com", b"evil.com@localhost", b"user:key@127.0.0.1", b"@localhost"],
    *["l\u00f6calhost".encode(), "l\u00f6calhost".encode("latin-1"), "\uff4cocalhost".encode()],
    *["\u200blocalhost".encode(), "localhost\u3002".encode(), "\u2460\u2461".encode()],
    *[b"localhost:", b"localhost:port", b"localhost:7777:80", b"localhost:999999", b"localhost:-1"],
    *[
        b"localhost:80",
        b"127.0.0.1:1",
        b"[::1]:65535",
        b"localhost:+80",
        b"localhost: 80",
        b"[::1]:",
        b"[::1]x",
        b":7777",
        b"",
    ],
    *[b"0.0.0.0", b"0.0.0.0:7777", b"[::]", b"127.0.0.2", b"127.1", b"2130706433", b"0x7f.1"],
    *[b"0177.0.0.1", b"[::ffff:127.0.0.1]", b"[0:0:0:0:0:0:0:1]", b"::1", b"[::1", b"[::1%25lo0]"],
    *[b"localhost/", b"localhost/v1", b"localhost?x", b"http://localhost", b"localhost, evil.com"],
    *[b"localhost evil.com", b"localhost\tevil.com", b"%6cocalhost", b"localhost%00", b"*"],
]


async def test_foreign_host_never_reaches_the_engine() -> None:
    engine = ScriptedEngine([says("ok")])
    async with listening(app_of(engine)) as url:
        for host in FOREIGN_HOSTS:
            sent = head(b"host: " + host, KEY_LINE, JSON_LINE, LENGTH) + BODY
            response = await ask(url, sent)
            assert (response.status, response.error["type"]) == (403, "permission_error"), host
        assert not engine.generations
    assert len(FOREIGN_HOSTS) >= 50


@pytest.mark.parametrize("host", [b"localhost", b"LocalHost", b"127.0.0.1", b"[::1]"])
@pytest.mark.parametrize("has_port", [True, False])
async def test_own_host_reaches_the_engine(host: bytes, *, has_port: bool) -> None:
    engine = ScriptedEngine([says("ok")])
    async with listening(app_of(engine)) as url:
        port = f":{httpx.URL(url).port}".encode() if has_port else b""
        line = b"host:  " + host + port + b" "
        response = await ask(url, head(line, KEY_LINE, JSON_LINE, LENGTH) + BODY)
    assert (response.status, len(engine.generations)) == (200, 1)


@pytest.mark.parametrize(
    "target",
    [
        b"http://evil.com/v1/messages",
        b"http://localhost/v1/messages",
        b"//evil.com/v1/messages",
        b"evil.com:443",
        b"*",
        b"v1/messages",
        b"/../v1/messages",
        b"/%2e%2e/v1/messages",
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"OPTIONS"])
async def test_target_that_is_no_path_never_reaches_the_engine(
    target: bytes, method: bytes
) -> None:
    first = method + b" " + target + b" HTTP/1.1"
    lines = (HOST, KEY_LINE, JSON_LINE, LENGTH, b"anthropic-version: 2023-06-01")
    response, reached = await outcome(head(*lines, first=first) + BODY)
    is_path = target.startswith(b"/")
    assert response.status == (404 if is_path else 403)
    assert response.error["type"] == ("not_found_error" if is_path else "permission_error")
    assert not reached


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (head(HOST, HOST, KEY_LINE), "Found multiple Host: headers"),
        (head(HOST, b"Host: evil.com", KEY_LINE), "Found multiple Host: headers"),
        (head(KEY_LINE), "Missing mandatory Host: header"),
        (head(b"host: localhost\x00", KEY_LINE), "illegal header line"),
        (head(HOST, b"x y: z"), "illegal header line"),
        (head(HOST, b"x : z"), "illegal header line"),
        (head(HOST, b"no colon"), "illegal header line"),
        (head(HOST, LENGTH, CHUNKED), "both Content-Length and Transfer-Encoding"),
        (head(HOST, CHUNKED, b"content-length: 0"), "both Content-Length and Transfer-Encoding"),
        (head(HOST, b"content-length: 5", b"content-length: 6"), "conflicting Content-Length"),
        (head(HOST, b"content-length: 5, 6"), "conflicting Content-Length"),
        (head(HOST, b"content-length: -1"), "bad Content-Length"),
        (head(HOST, b"content-length: +1"), "bad Content-Length"),
        (head(HOST, b"content-length: 0x1"), "bad Content-Length"),
        (head(HOST, b"content-length: 1_0"), "bad Content-Length"),
        (head(HOST, b"content-length: " + b"9" * 30), "bad Content-Length"),
        (head(HOST, b"transfer-encoding: gzip"), "Only Transfer-Encoding: chunked"),
        (head(HOST, b"transfer-encoding: chunked, gzip"), "Only Transfer-Encoding: chunked"),
        (head(HOST, CHUNKED, CHUNKED), "multiple Transfer-Encoding headers"),
        (head(HOST, first=b"POST /v1/messages"), "illegal request line"),
        (head(HOST, first=b"POST /v1/messages HTTP/1.1 x"), "illegal request line"),
        (head(HOST, first=b"POST /v1/m\xc3\xa9 HTTP/1.1"), "illegal request line"),
        (head(HOST, first=b"P\x00ST / HTTP/1.1"), "illegal request line"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600), ""),
        (b"\r\n\r\n\r\n", ""),
        (b"\x00" * 50_000, ""),
    ],
)
async def test_invalid_http_gets_an_error_envelope(sent: bytes, reason: str) -> None:
    response, reached = await outcome(sent)
    assert (response.status, response.headers["connection"]) == (400, "close")
    assert response.error["type"] == "invalid_request_error"
    assert response.error["message"].startswith("The request is not valid HTTP: ")
    assert reason in response.error["message"]
    assert response.headers["x-request-id"] == response.headers["request-id"]
    assert not reached


@pytest.mark.parametrize(
    "chunk", [b"x\r\n", b"-1\r\n", b"5\r\nabc", b"0x5\r\nabcde\r\n", b"5\nabcde\n"]
)
async def test_broken_chunked_body_is_refused_or_awaited(chunk: bytes) -> None:
    engine = ScriptedEngine([says("ok")])
    async with listening(app_of(engine)) as url, await connect(url) as connection:
        await connection.send(head(HOST, KEY_LINE, JSON_LINE, CHUNKED) + chunk + b"\r\n" * 9)
        with anyio.fail_after(10):
            response = await response_of(connection)
        assert (response.status, response.error["type"]) == (400, "invalid_request_error")
    assert not engine.generations


async def test_broken_body_of_openais_path_has_openais_error() -> None:
    first = b"POST /v1/responses HTTP/1.1"
    async with listening(app_of(ScriptedEngine([]))) as url:
        sent = head(HOST, KEY_LINE, JSON_LINE, CHUNKED, first=first) + b"x\r\n"
        response = await ask(url, sent)
    assert (response.status, response.headers["connection"]) == (400, "close")
    assert json.loads(response.body)["error"] == {
        "message": "The request is not valid HTTP: illegal chunk header",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def filler(count: int, size: int) -> list[bytes]:
    return [b"x-%04d: " % number + b"y" * (size - 10) for number in range(count)]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(filler(2000, 15), id="2000 headers"),
        pytest.param(filler(MAX_HEADERS - 3, 20), id="101 headers"),
        pytest.param(filler(1, 200_000), id="200 kB in one"),
        pytest.param(filler(20, 2000), id="40 kB in all"),
        pytest.param([b"x-api-key: " + b"k" * 65536], id="a key of 64 kB"),
    ],
)
async def test_head_over_limits_is_refused(lines: list[bytes]) -> None:
    response, reached = await outcome(head(HOST, KEY_LINE, JSON_LINE, LENGTH, *lines) + BODY)
    assert (response.status, response.error["type"]) == (431, "request_too_large")
    assert not reached


async def test_long_target_is_refused() -> None:
    first = b"GET /?" + b"x" * MAX_HEAD_BYTES + b" HTTP/1.1"
    assert (await outcome(head(HOST, first=first)))[0].status == 431


async def test_endless_head_is_refused() -> None:
    async with listening(app_of(ScriptedEngine([[]]))) as url, await connect(url) as connection:
        await connection.send(head(HOST)[:-2])
        for line in filler(1000, 100):
            await connection.send(line + b"\r\n")
        with anyio.fail_after(10):
            assert (await response_of(connection)).status == 431


async def test_head_within_limits_is_accepted() -> None:
    lines = filler(MAX_HEADERS - 4, (MAX_HEAD_BYTES - 500) // MAX_HEADERS)
    assert (await outcome(head(HOST, KEY_LINE, JSON_LINE, LENGTH, *lines) + BODY))[0].status == 200


async def test_body_in_tiny_chunks_is_refused() -> None:
    response, _ = await outcome(head(HOST, KEY_LINE, JSON_LINE, CHUNKED) + b"1\r\n \r\n" * 100_000)
    assert response.error["message"] == (
        "The request is not valid HTTP: body in too many small pieces"
    )


def test_memory_of_chunked_body_is_bounded_by_the_limit() -> None:
    """Measured in its own process: threads of other tests may still work on large texts."""
    module = test_memory_of_chunked_body_is_bounded_by_the_limit.__module__
    program = f"import anyio; from {module} import chunked_body; print(anyio.run(chunked_body))"
    done = run_program([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    assert 30 * 1024 * 1024 < int(done.stdout) <= 40 * 1024 * 1024


async def chunked_body() -> int:
    """Return the peak of allocated bytes while a body of 64 MiB arrives."""
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    async with listening(app_of(ScriptedEngine([[]]))) as url, await connect(url) as connection:
        tracemalloc.start()
        with anyio.fail_after(60):
            await connection.send(head(HOST, KEY_LINE, JSON_LINE, CHUNKED))
            for _ in range(64):
                await connection.send(chunk)
            await connection.send(b"0\r\n\r\n")
            response = await response_of(connection)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (response.status, response.error["type"]) == (413, "request_too_large")
        # The rest was skipped, so the connection is usable for the next request.
        await connection.send(CALL_BYTES.replace(b"/messages", b"/nowhere"))
        assert (await response_of(connection)).status == 404
    return peak_bytes


async def test_announced_body_over_the_limit_is_refused_unread() -> None:
    sent = head(HOST, KEY_LINE, JSON_LINE, b"content-length: 33554433", b"expect: 100-continue")
    response, _ = await outcome(sent)
    assert (response.status, response.error["type"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET canary HTTP/9 \x01\r\n\r\n",
        head(HOST, b"x-api-key: canary\x01"),
        head(HOST, b"canary(): x"),
        head(HOST, b"canary without a colon"),
        head(HOST, CHUNKED) + b"canary\r\n",
        head(HOST, b"content-length: canary"),
        head(HOST, b"transfer-encoding: canary"),
    ],
)
async def test_invalid_http_is_not_quoted_in_the_log(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    response, _ = await outcome(sent)
    assert response.status in {400, 401, 501}
    assert "canary" not in caplog.text


async def test_slow_heads_time_out_while_others_are_served() -> None:
    engine = ScriptedEngine([says("ok")])
    timeouts = ConnectionTimeouts(head_s=3.0)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(app_of(engine), timeouts=timeouts))
        slow: list[SocketStream] = []
        for _ in range(300):
            slow.append(await stack.enter_async_context(await connect(url)))
            await slow[-1].send(b"POST /v1/messages HTTP/1.1\r\nhost:")
        with anyio.fail_after(60):
            for _ in range(10):
                assert (await ask(url, CALL_BYTES)).status == 200
            for connection in slow:
                response = await response_of(connection)
                assert response.error["message"] == "The request's head did not arrive in time."
                assert await is_closed(connection)


async def test_dripping_head_times_out() -> None:
    async with (
        listening(app_of(ScriptedEngine([[]])), timeouts=ConnectionTimeouts(head_s=0.2)) as url,
        await connect(url) as connection,
        anyio.create_task_group() as tasks,
    ):
        answered = anyio.Event()

        async def drip() -> None:
            for byte in head(*filler(80, 90)):
                await connection.send(bytes([byte]))
                with anyio.move_on_after(0.01):
                    await answered.wait()

        tasks.start_soon(drip)
        with anyio.fail_after(5):
            assert (await response_of(connection)).status == 400
        answered.set()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("before", [b"", CALL_BYTES, CALL_BYTES + b"POST /v1/messages HT"])
async def test_idle_connection_is_closed(before: bytes) -> None:
    timeouts = ConnectionTimeouts(head_s=0.1, idle_s=0)
    async with (
        listening(app_of(ScriptedEngine([says("ok")])), timeouts=timeouts) as url,
        await connect(url) as connection,
    ):
        with anyio.fail_after(10):
            if before:
                await connection.send(before)
                assert (await response_of(connection)).status == 200
            if before.endswith(b"HT"):
                assert (await response_of(connection)).status == 400
            assert await is_closed(connection)


async def test_answered_client_that_keeps_sending_is_closed() -> None:
    timeouts = ConnectionTimeouts(rest_s=0.1)
    sent = head(HOST, JSON_LINE, b"x-api-key: wrong", b"content-length: 1000000")
    async with (
        listening(app_of(ScriptedEngine([[]])), timeouts=timeouts) as url,
        await connect(url) as connection,
    ):
        await connection.send(sent)
        with anyio.fail_after(5):
            assert (await response_of(connection)).status == 401
            while True:
                try:
                    await connection.send(b" ")
                    with suppress(anyio.EndOfStream), anyio.move_on_after(0.01):
                        await connection.receive()
                except anyio.BrokenResourceError:
                    break


async def test_pipelined_requests_are_answered() -> None:
    engine = ScriptedEngine([says("ok")])
    async with listening(app_of(engine)) as url, await connect(url) as connection:
        await connection.send(CALL_BYTES * 3)
        with anyio.fail_after(5):
            assert [(await response_of(connection)).status for _ in range(3)] == [200] * 3


class WatchedEngine(ScriptedEngine):
    """Counts the generations that have ended."""

    ended_generations = 0

    def expect(self) -> AbstractContextManager[None]:
        return nullcontext()

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        try:
            async with super().generate(generation) as events:
                yield events
        finally:
            self.ended_generations += 1


async def test_stalled_readers_are_closed_and_delay_no_other() -> None:
    """Each gets as much as the buffers hold, not all that the engine would generate."""
    finished: list[int] = []
    engine = WatchedEngine([[Started(0), *[Token(65)] * 3000, lambda: finished.append(1)]])
    app = app_of(engine, context_tokens=10_000)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(
            listening(app, timeouts=ConnectionTimeouts(stall_s=0.5), send_buffer_bytes=4096)
        )
        for _ in range(50):
            reader = await stack.enter_async_context(await connect(url))
            reader.extra(SocketAttribute.raw_socket).setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
            await reader.send(call_bytes(stream=True, max_tokens=5000))
        with anyio.fail_after(20):
            while engine.ended_generations < 50:
                health = await ask(url, head(HOST, first=b"GET /health HTTP/1.1"))
                assert health.status == 200
    assert len(engine.generations) == 50
    assert not finished


async def test_disconnect_at_any_moment_frees_everything() -> None:
    """While waiting for the engine, during prefill, in mid-answer; streamed and whole."""
    moments: list[list[object]] = [[], [Started(0), Prefilled(5)], [Started(0), Token(65)]]
    reached: list[int] = []
    all_reached = anyio.Event()

    def reach() -> None:
        reached.append(1)
        if len(reached) == 200:
            all_reached.set()

    engine = WatchedEngine([[*moment, reach, anyio.Event()] for moment in moments * 67])
    async with listening(app_of(engine)) as url:
        tasks_before = asyncio.all_tasks()
        clients = [await connect(url) for _ in range(200)]
        for number, client in enumerate(clients):
            await client.send(call_bytes(stream=number % 2 == 0))
        with anyio.fail_after(10):
            await all_reached.wait()
        for client in clients:
            await client.aclose()
        with anyio.fail_after(2):
            while more := asyncio.all_tasks() - tasks_before:
                await asyncio.wait(more)
        assert engine.ended_generations == 200
