"""Cost of the front end with a scripted engine: requests/s, ms, µs per token, and event loop lag.

usage: python -m benchmarks.front_end [--home FOLDER] [--beyond CONTEXT_TOKENS]
HTTP, JSON, validation, chat template, tokenizing and event stream are measured, without a model.
smollm2-135m's tokenizer is read from FOLDER and downloaded if missing. With --beyond, only requests
of up to 31 MB are sent, which such a context refuses.

Another process serves the real application, then a bare Starlette endpoint with responses of the
same size. Compare the ratios. The lag is the worst delay in ms of a task that sleeps for 1 ms, in
one round; the median and the best of the rounds are printed.
"""

# pyright: basic

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import resource
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from pensieve.api import json_body
from pensieve.api.messages.request import MessagesRequest, decode
from pensieve.engine.generation import EngineHealth, Finished, Started, Token
from pensieve.models.load import open_model
from pensieve.paths import under_home
from pensieve.prompt.render import PromptRenderer
from pensieve.server.app import build_app
from pensieve.server.http.uvicorn_server import http_server, run_until_signal
from pensieve.settings.resolve import Settings
from tests.support.embedded_model import embedded_model_folder
from tests.support.fakes import ScriptedEngine

KEY = "pensieve-local-key"
CONTEXT_TOKENS = 10_000_000
STREAMED_TOKENS = 2000
CLIENTS = 8
ROUNDS = 9
SMALL = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "Hello!"}]}


class Lag:
    """Serves the worst lag of the event loop since the previous request, at `/lag`."""

    def __init__(self) -> None:
        self._worst_s = 0.0

    async def tick(self) -> None:
        while True:
            began_at = time.perf_counter()
            await asyncio.sleep(0.001)
            self._worst_s = max(self._worst_s, time.perf_counter() - began_at - 0.001)

    async def respond(self, _request: Request) -> JSONResponse:
        worst_s, self._worst_s = self._worst_s, 0.0
        return JSONResponse(worst_s * 1000)


def real_app(home: Path, context_tokens: int) -> Starlette:
    """Return the application with the embedded model's tokenizer."""
    model = open_model(embedded_model_folder(home))
    word = model.tokenizer.encode(" word")[0]
    engine = ScriptedEngine(
        [[Started(0), *[Token(word)] * STREAMED_TOKENS, Finished("stop_token", STREAMED_TOKENS)]],
        health=EngineHealth("ready", context_tokens=context_tokens),
    )
    paths = under_home(Path(tempfile.mkdtemp()))
    return build_app(
        engine,
        replace(model, context_tokens=context_tokens),
        Settings(paths=paths, device="cpu", host="0.0.0.0"),
    )


def bare_app() -> Starlette:
    """Return the minimum: it parses JSON and responds with as many bytes."""
    message = {"content": [{"type": "text", "text": " word"}], "filler": "x" * 400}
    frame = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{}}\n\n'
    )

    async def whole(request: Request) -> JSONResponse | StreamingResponse:
        fields = await request.json()
        return StreamingResponse(frames()) if fields.get("stream") else JSONResponse(message)

    async def frames():
        for _ in range(STREAMED_TOKENS):
            yield frame
            await asyncio.sleep(0)

    return Starlette(
        routes=[
            Route("/v1/messages", whole, methods=["POST"]),
            Route("/v1/messages/count_tokens", whole, methods=["POST"]),
        ]
    )


async def peak_mb(_request: Request) -> JSONResponse:
    """Return the peak memory of this process."""
    return JSONResponse(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def serve(listener: socket.socket, home: Path | None, context_tokens: int) -> None:
    """Serve until the process is terminated."""

    async def run() -> None:
        app = bare_app() if home is None else real_app(home, context_tokens)
        lag = Lag()
        app.router.routes.append(Route("/lag", lag.respond, methods=["POST"]))
        app.router.routes.append(Route("/peak", peak_mb, methods=["POST"]))
        ticking = asyncio.create_task(lag.tick())
        async with app.router.lifespan_context(app):
            await run_until_signal(http_server(app), [listener])
        ticking.cancel()

    asyncio.run(run())


@contextmanager
def serving(home: Path | None, context_tokens: int = CONTEXT_TOKENS) -> Iterator[int]:
    """Run a server in another process; yield its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        process = multiprocessing.get_context("fork").Process(
            target=serve, args=(listener, home, context_tokens)
        )
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.join()


class Client:
    """One connection with minimal client-side cost."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def at(cls, port: int) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**24))

    async def send(
        self, body: bytes, path: str = "/v1/messages", *, may_fail: bool = False
    ) -> None:
        """Send a request and read the head of the response, which must be 200 unless `may_fail`."""
        head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        self._head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert may_fail or " 200 " in self._head, self._head + str(await self._reader.read(500))

    async def read_body(self) -> bytes:
        if "content-length: " in self._head:
            size = int(self._head.split("content-length: ")[1].split("\r\n")[0])
            return await self._reader.readexactly(size)
        body = bytearray()
        while size := int(await self._reader.readline(), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()
        return bytes(body)

    async def post(self, body: bytes, path: str = "/v1/messages") -> bytes:
        await self.send(body, path)
        return await self.read_body()

    async def post_refused(self, body: bytes) -> bytes:
        """Send a request that may be refused."""
        await self.send(body, may_fail=True)
        return await self.read_body()

    async def lag_ms(self) -> float:
        return float(await self.post(b"{}", "/lag"))


@dataclass
class Figures:
    """The figures of one server."""

    requests_per_s: float
    first_byte_ms: float
    per_token_us: float


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began_at = time.perf_counter()
    await work()
    return time.perf_counter() - began_at


async def small_requests(port: int) -> Figures:
    """Measure throughput with several clients, and a stream with one."""
    clients = [await Client.at(port) for _ in range(CLIENTS)]
    small = json.dumps(SMALL).encode()
    stream = json.dumps(SMALL | {"max_tokens": STREAMED_TOKENS, "stream": True}).encode()

    async def post_often(client: Client) -> None:
        for _ in range(50):
            await client.post(small)

    async def all_post() -> None:
        await asyncio.gather(*map(post_often, clients))

    await all_post()
    rounds = [await timed(all_post) for _ in range(ROUNDS)]
    first, tokens = [], []
    for _ in range(ROUNDS):
        first.append(await timed(lambda: clients[0].send(stream)))
        tokens.append(await timed(clients[0].read_body))
    return Figures(
        requests_per_s=CLIENTS * 50 / statistics.median(rounds),
        first_byte_ms=statistics.median(first) * 1000,
        per_token_us=statistics.median(tokens) / STREAMED_TOKENS * 1e6,
    )


def real_text(size: int) -> str:
    """Return source code of Python, the same for every installation of this version."""
    files = sorted(Path(json.__file__).parents[1].glob("*.py"))
    text = "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    assert len(text) > size
    return text[:size]


def large_requests() -> dict[str, bytes]:
    """Return requests of 1 MB: one message, a long session with tools, and many blocks."""
    text = real_text(940_000)
    turns: list[object] = [{"role": "user", "content": "Read everything."}]
    for at in range(0, 880_000, 8_000):
        use = {"type": "tool_use", "id": f"t{at}", "name": "Read", "input": {"from": at}}
        part = [{"type": "text", "text": text[at : at + 8_000]}]
        result = {"type": "tool_result", "tool_use_id": f"t{at}", "content": part}
        turns.append({"role": "assistant", "content": [{"type": "text", "text": "Next."}, use]})
        turns.append({"role": "user", "content": [result]})
    blocks = [{"type": "text", "text": text[at : at + 12]} for at in range(0, 180_000, 12)]
    bodies = {
        "one message": [{"role": "user", "content": text}],
        "110 tool results": turns,
        "15 000 blocks": [{"role": "user", "content": blocks}],
    }
    return {
        name: json.dumps(SMALL | {"messages": messages}).encode()
        for name, messages in bodies.items()
    }


async def large_request(port: int, body: bytes) -> tuple[float, list[float]]:
    """Return the median ms of count_tokens, and the worst lag of each round."""
    client, watcher = await Client.at(port), await Client.at(port)
    path = "/v1/messages/count_tokens"
    await client.post(body, path)
    times, lags = [], []
    for _ in range(ROUNDS):
        await watcher.lag_ms()
        times.append(await timed(lambda: client.post(body, path)))
        lags.append(await watcher.lag_ms())
    return statistics.median(times) * 1000, lags


async def beyond_the_context(home: Path, context_tokens: int) -> None:
    """Print time, lag and memory of requests that are refused for their length."""
    for megabytes in (1, 4, 16, 31):
        body = json.dumps(
            SMALL | {"messages": [{"role": "user", "content": real_text(940_000) * megabytes}]}
        ).encode()[: 32 * 2**20]
        with serving(home, context_tokens) as port:
            client, watcher = await Client.at(port), await Client.at(port)
            before_mb = float(await watcher.post(b"{}", "/peak"))
            await client.post_refused(body)
            times, lags = [], []
            for _ in range(3):
                await watcher.lag_ms()
                times.append(await timed(partial(client.post_refused, body)))
                lags.append(await watcher.lag_ms())
            more_mb = float(await watcher.post(b"{}", "/peak")) - before_mb
        print(
            f"{len(body):,} bytes, context of {context_tokens}:"
            f" {statistics.median(times) * 1000:.0f} ms;"
            f" lag {spread(lags)}; {more_mb:.0f} MB more memory"
        )


async def idle_lags(port: int) -> list[float]:
    watcher = await Client.at(port)
    lags = []
    for _ in range(ROUNDS):
        await watcher.lag_ms()
        await asyncio.sleep(0.3)
        lags.append(await watcher.lag_ms())
    return lags


def stages(home: Path, body: bytes) -> dict[str, float]:
    """Return the ms of each stage, called one after another without a server."""
    renderer = PromptRenderer(open_model(embedded_model_folder(home)).tokenizer)
    spent: dict[str, list[float]] = {"decode": [], "validate": [], "render and tokenize": []}
    for _ in range(ROUNDS):
        began_at = time.perf_counter()
        fields = json_body.decode(body)
        decoded_at = time.perf_counter()
        call = decode(MessagesRequest, fields)
        validated_at = time.perf_counter()
        renderer.render(call)
        spent["decode"].append(decoded_at - began_at)
        spent["validate"].append(validated_at - decoded_at)
        spent["render and tokenize"].append(time.perf_counter() - validated_at)
    return {name: statistics.median(times) * 1000 for name, times in spent.items()}


def spread(lags: list[float]) -> str:
    return f"median {statistics.median(lags):5.1f} ms, best {min(lags):5.1f} ms"


def row(name: str, ours: float, bare: float, unit: str) -> str:
    return f"| {name} | {ours:,.1f} {unit} | {bare:,.1f} {unit} | {ours / bare:.2f} |"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "pensieve-bench")
    parser.add_argument("--beyond", type=int, metavar="CONTEXT_TOKENS")
    arguments = parser.parse_args()
    home = arguments.home
    embedded_model_folder(home)
    if arguments.beyond:
        await beyond_the_context(home, arguments.beyond)
        return
    with serving(None) as bare_port:
        bare = await small_requests(bare_port)
        bare_large, _ = await large_request(bare_port, large_requests()["one message"])
    with serving(home) as port:
        ours = await small_requests(port)
        python = f"Python {platform.python_version()}, {os.cpu_count()} cores"
        print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.platform()}, {python}\n")
        print("| | pensieve | bare Starlette | ratio |\n|---|---|---|---|")
        print(row("small requests per second", ours.requests_per_s, bare.requests_per_s, ""))
        print(row("first byte of a stream", ours.first_byte_ms, bare.first_byte_ms, "ms"))
        print(row("streamed token", ours.per_token_us, bare.per_token_us, "µs"))
        print(
            f"\nidle: lag {spread(await idle_lags(port))}; bare parses 1 MB in {bare_large:.1f} ms"
        )
        for name, body in large_requests().items():
            whole, lags = await large_request(port, body)
            parts = ", ".join(f"{part} {ms:.1f}" for part, ms in stages(home, body).items())
            print(f"{name} ({len(body):,} bytes): {whole:.0f} ms ({parts}); lag {spread(lags)}")


if __name__ == "__main__":
    asyncio.run(main())
