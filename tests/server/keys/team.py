"""A server with named keys, in memory, and clients of several of them."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from pensieve.credentials.named_keys import KeyLimits, add_key
from pensieve.paths import Paths, under_home
from pensieve.server.app import AppParts
from tests.server.serving import KEY, SETTINGS, app_of
from tests.support.fakes import ScriptedEngine, says

OTHER_MACHINE = "192.168.1.9"
VERSION = {"anthropic-version": "2023-06-01"}


@dataclass
class Team:
    """Clients by the names of their keys; "" is the server's own."""

    paths: Paths
    engine: ScriptedEngine
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    def __getitem__(self, name: str) -> httpx.AsyncClient:
        return self.clients[name]


@asynccontextmanager
async def team_of(
    home: Path,
    *names: str,
    limits: KeyLimits | None = None,
    engine: ScriptedEngine | None = None,
    parts: AppParts | None = None,
    peer: str = "127.0.0.1",
    **settings: object,
) -> AsyncGenerator[Team]:
    engine = engine or ScriptedEngine([says("ok")])
    own = replace(SETTINGS, paths=under_home(home), **settings)
    app = app_of(engine, settings=own, parts=parts)
    team = Team(own.paths, engine)
    keys = {name: add_key(own.paths.keys_file, name, limits or KeyLimits(), 1.0) for name in names}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        for name, key in {"": KEY, **keys}.items():
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app, client=(peer, 5555)),
                base_url="http://localhost:7777",
                headers={"x-api-key": key, **VERSION},
            )
            team.clients[name] = await stack.enter_async_context(client)
        yield team
