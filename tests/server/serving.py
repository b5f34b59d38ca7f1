"""How the tests reach the server: in memory through httpx, or a real uvicorn on loopback."""

import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
from starlette.applications import Starlette

from pensieve.paths import under_home
from pensieve.server.app import AppParts, build_app
from pensieve.server.http.connection_limits import ConnectionTimeouts
from pensieve.server.http.uvicorn_server import http_server
from pensieve.server.routing import wire_by_head
from pensieve.settings.resolve import Settings
from tests.support.fakes import ScriptedEngine, served_model

KEY = "pensieve-local-key"
CALL = {"model": "any", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
SETTINGS = Settings(paths=under_home(Path("/nowhere")), device="cpu")


def app_of(
    engine: ScriptedEngine,
    *,
    parts: AppParts | None = None,
    settings: Settings = SETTINGS,
    **model: object,
) -> Starlette:
    return build_app(engine, served_model(**model), settings, parts)


def in_memory(app: Starlette, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    """Return a client that stays in this process. Streams arrive when they have ended."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://localhost:7777",
        headers={"x-api-key": KEY} if headers is None else headers,
    )


@asynccontextmanager
async def listening(
    app: Starlette,
    *,
    grace_s: int = 1,
    timeouts: ConnectionTimeouts | None = None,
    send_buffer_bytes: int | None = None,
    port: int = 0,
) -> AsyncGenerator[str]:
    """Run a real server in the event loop of the test; yield its address."""
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        if send_buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        server = http_server(app, grace_s=grace_s, timeouts=timeouts, wire_of=wire_by_head)
        async with app.router.lifespan_context(app), anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True


async def stream_by_hand(app: Starlette, send: Callable[..., Awaitable[None]]) -> None:
    """Send one streaming call through the bare ASGI interface, by a client that does not
    disconnect.
    """
    body = json.dumps(CALL | {"stream": True}).encode()
    headers = {"host": "localhost", "x-api-key": KEY, "content-type": "application/json"}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/messages", "headers": pairs}
    incoming = [{"type": "http.request", "body": body}]

    async def receive() -> dict[str, object]:
        if not incoming:
            await anyio.sleep_forever()
        return incoming.pop()

    with anyio.fail_after(10):
        await app(scope, receive, send)


def stream_events(text: str) -> list[dict[str, object]]:
    """Return the events of a whole stream; check that `event:` and `data:` lines agree."""
    assert text.endswith("\n\n")
    return [_event(block) for block in text[:-2].split("\n\n")]


def _event(block: str) -> dict[str, object]:
    first, second = block.splitlines()
    name, data = first.removeprefix("event: "), second.removeprefix("data: ")
    event = json.loads(data)
    assert (first, second) == (f"event: {event['type']}", f"data: {data}")
    assert name == event["type"]
    return event


def kinds(events: Iterable[dict[str, object]]) -> list[object]:
    return [event["type"] for event in events]
