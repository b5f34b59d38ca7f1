"""The server on a real socket: Anthropic's client, disconnects, and a stopping server."""

import asyncio
import errno
import json
import signal
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

import anthropic
import anyio
import anyio.lowlevel
import httpx
import pytest
from anthropic import AsyncAnthropic
from anyio.abc import SocketStream

from pensieve.engine.generation import Prefilled, Started, Token
from pensieve.errors import EngineBusyError, WorkerDiedError
from pensieve.server.http.uvicorn_server import http_server, run_until_signal
from tests.server.serving import CALL, KEY, app_of, listening, stream_events
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio
HELLO = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}

STREAM = CALL | {"stream": True}


@asynccontextmanager
async def client_of(
    engine: ScriptedEngine, key: str = KEY, **model: object
) -> AsyncGenerator[AsyncAnthropic]:
    async with (
        listening(app_of(engine, **model)) as url,
        AsyncAnthropic(base_url=url, api_key=key, max_retries=0) as client,
    ):
        yield client


async def test_official_client_raises_matching_error() -> None:
    busy = ScriptedEngine([[]], refusal=EngineBusyError("Overloaded"))
    async with client_of(busy) as client:
        with pytest.raises(anthropic.OverloadedError) as caught:
            await client.messages.create(**HELLO)
        assert caught.value.response.headers["retry-after"] == "2"
        with pytest.raises(anthropic.BadRequestError, match="max_tokens: Input should be"):
            await client.messages.create(**HELLO | {"max_tokens": -1})
    async with client_of(busy, key="wrong") as client:
        with pytest.raises(anthropic.AuthenticationError, match="Invalid bearer token"):
            await client.messages.create(**HELLO)


CLAUDE_CODE = {"user-agent": "claude-cli/2.1.330 (external, cli)"}


async def receive(client: httpx.AsyncClient, received: list[str]) -> None:
    async with client.stream("POST", "/v1/messages", json=STREAM) as response:
        async for text in response.aiter_text():
            received += [text]


async def test_failing_stream_of_claude_code_is_aborted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It then retries the stream; after an `error` event it would retry without streaming, for at
    most 300 s.
    """
    script = [Started(0), *map(Token, b"Hi"), WorkerDiedError("The engine worker ended.")]
    async with (
        listening(app_of(ScriptedEngine([script]))) as url,
        httpx.AsyncClient(base_url=url, headers={"x-api-key": KEY, **CLAUDE_CODE}) as client,
    ):
        received: list[str] = []
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await receive(client, received)
    assert '"text":"i"' in "".join(received)
    assert "event: error" not in "".join(received)
    assert "so that the client retries: The engine worker ended." in caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def posted(stream: bool) -> bytes:
    body = json.dumps(CALL | {"stream": stream}).encode()
    head = (
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"x-api-key: {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def connect(url: str) -> SocketStream:
    address = httpx.URL(url)
    return await anyio.connect_tcp(address.host, address.port)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "script",
    [
        pytest.param([], id="waiting"),
        pytest.param([Started(0), Prefilled(5)], id="prefilling"),
        pytest.param([Started(0), Token(65)], id="decoding"),
    ],
)
async def test_disconnect_frees_the_slot(script: list[object], *, stream: bool) -> None:
    reached, never = anyio.Event(), anyio.Event()
    engine = ScriptedEngine([[*script, reached.set, never]])
    async with listening(app_of(engine)) as url:
        connection = await connect(url)
        await connection.send(posted(stream))
        with anyio.fail_after(5):
            await reached.wait()
            await connection.aclose()
            await engine.left.wait()


async def test_small_writes_do_not_wait_for_acknowledgement() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = http_server(app_of(ScriptedEngine([[]])))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=url) as client:
                assert (await client.get("/health")).status_code == 200
                (connection,) = server.server_state.connections
                accepted = connection.transport.get_extra_info("socket")
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            server.should_exit = True


async def test_client_may_disconnect_while_sending() -> None:
    async with listening(app_of(ScriptedEngine([says("ok")]))) as url:
        connection = await connect(url)
        await connection.send(posted(stream=False)[:-5])
        await connection.aclose()
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/health")).status_code == 200


async def test_long_stream_continues_after_first_bytes_are_read() -> None:
    more = anyio.Event()
    engine = ScriptedEngine([[Started(0), more, *says("Hi")[1:]]])
    headers = {"x-api-key": KEY}
    async with (
        listening(app_of(engine)) as url,
        httpx.AsyncClient(base_url=url, headers=headers) as client,
        client.stream("POST", "/v1/messages", json=CALL | {"stream": True}) as response,
    ):
        received = ""
        async for text in response.aiter_text():
            received += text
            if "event: ping" in received:
                more.set()
    assert stream_events(received)[-1] == {"type": "message_stop"}


@asynccontextmanager
async def until_signal(
    engine: ScriptedEngine, grace_s: int, **headers: str
) -> AsyncGenerator[httpx.AsyncClient]:
    """Yield a client of a server that a signal stops; the block ends when the server has."""
    with socket.create_server(("127.0.0.1", 0)) as listener, anyio.fail_after(10):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                run_until_signal, http_server(app_of(engine), grace_s=grace_s), [listener]
            )
            async with httpx.AsyncClient(
                base_url=url, headers={"x-api-key": KEY, **headers}
            ) as client:
                yield client


async def streamed(client: httpx.AsyncClient, at: str, then: Callable[[], object]) -> str:
    """Return a stream's whole text; `then` is called once `at` has arrived."""
    received = ""
    async with client.stream("POST", "/v1/messages", json=CALL | {"stream": True}) as response:
        async for text in response.aiter_text():
            is_new = at not in received
            received += text
            if is_new and at in received:
                then()
    return received


async def test_signals_after_the_end_are_handled_as_before_the_start() -> None:
    """The engine writes to disk then: a default handler would end the process before it has."""

    def handle(_signal: int, _frame: object) -> None:
        pass

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        async with until_signal(ScriptedEngine([says("Hi")]), grace_s=1) as client:
            await client.get("/health")
            signal.raise_signal(signal.SIGTERM)
        assert [signal.getsignal(number) for number in numbers] == [handle, handle]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def test_open_stream_finishes_when_reason_to_end_returns() -> None:
    reason, is_stopping = anyio.Event(), anyio.Event()
    engine = ScriptedEngine([[Started(0), Token(72), reason.set, is_stopping, *says("i")[1:]]])
    with socket.create_server(("127.0.0.1", 0)) as listener, anyio.fail_after(10):
        server = http_server(app_of(engine), grace_s=5)
        has_left: list[bool] = []

        async def serve() -> None:
            has_left.append(await run_until_signal(server, [listener], reason.wait))

        async def let_it_finish() -> None:
            await reason.wait()
            while not server.should_exit:
                await anyio.lowlevel.checkpoint()
            is_stopping.set()

        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with (
            anyio.create_task_group() as tasks,
            httpx.AsyncClient(base_url=url, headers={"x-api-key": KEY}) as client,
        ):
            tasks.start_soon(serve)
            tasks.start_soon(let_it_finish)
            received = await streamed(client, "never", lambda: None)
    assert stream_events(received)[-1] == {"type": "message_stop"}
    assert has_left == [True]


async def test_connection_reset_before_accept_is_no_error() -> None:
    class ResetSocket:
        def setsockopt(self, *_: int) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", 7777

        def getpeername(self) -> tuple[str, int]:
            raise OSError(errno.EINVAL, "Invalid argument")

    class ResetTransport(asyncio.Transport):
        def get_extra_info(self, name: str, default: object = None) -> object:
            return ResetSocket() if name == "socket" else default

        def is_closing(self) -> bool:
            return True

    server = http_server(app_of(ScriptedEngine([[]])))
    server.config.load()
    protocol = server.config.http_protocol_class(
        config=server.config, server_state=server.server_state, app_state={}
    )
    protocol.connection_made(ResetTransport())
    protocol.connection_lost(ConnectionResetError())


STOPPED = {"type": "overloaded_error", "message": "The server is stopping."}


@pytest.mark.parametrize(("signals", "grace_s"), [(1, 0), (2, 60)])
async def test_open_stream_ends_with_error_when_server_stops(
    caplog: pytest.LogCaptureFixture, signals: int, grace_s: int
) -> None:
    engine = ScriptedEngine([[Started(0), *map(Token, b"Hi"), anyio.Event()]])

    async with until_signal(engine, grace_s) as client, anyio.create_task_group() as tasks:
        stop = anyio.Event()

        async def signal_each() -> None:
            await stop.wait()
            for _ in range(signals):
                signal.raise_signal(signal.SIGTERM)
                await anyio.lowlevel.checkpoint()

        tasks.start_soon(signal_each)
        received = await streamed(client, '"text":"i"', stop.set)
    assert stream_events(received)[-1]["error"] == STOPPED
    assert engine.left.is_set()
    assert not [record for record in caplog.records if record.exc_info]


async def test_stream_of_claude_code_is_aborted_when_server_stops() -> None:
    stop = partial(signal.raise_signal, signal.SIGTERM)
    engine = ScriptedEngine([[Started(0), Token(65), stop, anyio.Event()]])
    async with until_signal(engine, 0, **CLAUDE_CODE) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await client.post("/v1/messages", json=STREAM)
    assert engine.left.is_set()


async def test_waiting_call_is_refused_when_server_stops() -> None:
    stop = partial(signal.raise_signal, signal.SIGTERM)
    engine = ScriptedEngine([[Started(0), Token(65), stop, anyio.Event()]])
    async with until_signal(engine, 0) as client:
        response = await client.post("/v1/messages", json=CALL)
    assert (response.status_code, response.json()["error"]) == (529, STOPPED)
    assert engine.left.is_set()


async def test_stream_may_finish_while_server_stops() -> None:
    stop = partial(signal.raise_signal, signal.SIGINT)
    more = anyio.Event()
    engine = ScriptedEngine([[Started(0), stop, more, *says("Hi")[1:]]])
    async with until_signal(engine, 5) as client:
        received = await streamed(client, "event: ping", more.set)
    assert stream_events(received)[-1] == {"type": "message_stop"}
