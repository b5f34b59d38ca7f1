"""A real server for clients that live outside the test's event loop: the scripted engine behind uvicorn on loopback.

It runs in a thread of its own, so a blocking client or another process can talk to it.
"""

from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from pensieve.engine.generation import EngineEvent, EngineHealth, Generation
from pensieve.paths import under_home
from tests.fakes import ByteTokenizer, ScriptedEngine, says
from tests.server.serving import SETTINGS, app_of, listening


@contextmanager
def serving(engine: ScriptedEngine, home: Path, **model: object) -> Generator[str]:
    """The address of a server whose files and batches lie in `home`."""
    app = app_of(engine, settings=replace(SETTINGS, paths=under_home(home)), **model)
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(listening(app)) as url,
    ):
        yield url


@dataclass
class RememberingEngine:
    """Says the same again and again, and finds in its cache what earlier prompts began with."""

    text: str
    health: EngineHealth = field(default_factory=lambda: EngineHealth("ready", worker_pid=1))
    seen: list[tuple[int, ...]] = field(default_factory=list)

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        prompt = tuple(generation.prompt_tokens)
        cached = max((_shared(prompt, before) for before in self.seen), default=0)
        self.seen.append(prompt)
        script = says(self.text, cached_tokens=min(cached, len(prompt) - 1))
        async with ScriptedEngine([script]).generate(generation) as events:
            yield events


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)


def prompts(engine: ScriptedEngine) -> list[str]:
    """What the engine was asked, as text with the control tokens by name."""
    return [ByteTokenizer().decode(asked.prompt_tokens) for asked in engine.generations]
