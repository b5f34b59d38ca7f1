"""One engine made of several: each request goes where it is answered first.

That is where the longest part of its prompt is cached, unless waiting there costs more than
processing it elsewhere. So a conversation stays with one engine, and moves when that is busy, dead
or drained. Which prompts an engine has is the router's own record of what it sent there.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

import anyio

from pensieve.engine.client.combined_health import combined
from pensieve.engine.client.prefix_table import BLOCK_TOKENS, PrefixTable, block_hashes
from pensieve.engine.generation import (
    Engine,
    EngineEvent,
    EngineHealth,
    EngineState,
    Generation,
    Prefilled,
    Token,
)

_log = logging.getLogger("pensieve.engine")

# What an answer next to a prompt costs it, in prompt tokens: they share the engine's time.
ANSWER_TOKENS = 256
# What loading an unloaded model costs, in prompt tokens.
WAKE_TOKENS = 4096
RESTART_INTERVAL_S = 0.05
# An engine that takes requests is chosen before any other.
_STATES: tuple[EngineState, ...] = ("ready", "asleep", "loading", "failed")


@dataclass(slots=True, eq=False)
class Work:
    """One open request of an engine."""

    waiting_tokens: int  # of its prompt, not processed yet

    @property
    def tokens(self) -> int:
        return self.waiting_tokens + ANSWER_TOKENS


class ReloadableEngine(Engine, Protocol):
    def reload(self) -> None:
        """Replace a worker that has no open requests; the state is `loading` meanwhile."""
        ...


@dataclass(slots=True, eq=False)
class Replica:
    name: str
    engine: ReloadableEngine
    table: PrefixTable = field(default_factory=PrefixTable)
    open: set[Work] = field(default_factory=set[Work])
    is_drained: bool = False  # takes no new requests while another one does
    _restarts: int = 0  # of its worker, when the table was last used

    def match(self, hashes: Sequence[bytes]) -> int:
        """Return how many first tokens its worker has; of what a dead one had, none."""
        if (restarts := self.engine.health.restarts) != self._restarts:
            self.table, self._restarts = PrefixTable(), restarts
        return self.table.match(hashes)

    @property
    def rank(self) -> int:
        """Lower is better."""
        state = self.engine.health.state
        return _STATES.index("ready" if state == "asleep" else state) + self.is_drained

    @property
    def busy_tokens(self) -> int:
        wake = WAKE_TOKENS if self.engine.health.state == "asleep" else 0
        return wake + sum(work.tokens for work in self.open)


class Router:
    """Implements `Engine`. Used on the event loop alone."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = tuple(replicas)

    @property
    def health(self) -> EngineHealth:
        return combined({each.name: each.engine.health for each in self.replicas})

    @contextmanager
    def expect(self) -> Generator[None]:
        with ExitStack() as stack:
            for replica in self.replicas:
                stack.enter_context(replica.engine.expect())
            yield

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncGenerator[AsyncIterator[EngineEvent]]:
        """Run one generation on the engine chosen for it. See `Engine.generate`."""
        hashes = block_hashes(generation.prompt_tokens)
        replica = self.choose(generation, hashes)
        work = Work(len(generation.prompt_tokens) - replica.match(hashes))
        replica.open.add(work)
        replica.table.add(hashes)
        try:
            async with replica.engine.generate(generation) as events:
                yield _watched(events, work, len(generation.prompt_tokens))
        finally:
            replica.open.remove(work)

    async def restart_each(self) -> None:
        """Restart the engines one after another, while the others take the requests."""
        for replica in self.replicas:
            replica.is_drained = True
            try:
                await _until(lambda each=replica: not each.open)
                replica.engine.reload()
                await _until(lambda each=replica: each.engine.health.state != "loading")
            finally:
                replica.is_drained = False
            _log.info("%s was restarted: %s", replica.name, replica.engine.health.state)

    def choose(self, generation: Generation, hashes: Sequence[bytes]) -> Replica:
        """Return the engine that is to answer."""
        rank = min(each.rank for each in self.replicas)
        usable = [each for each in self.replicas if each.rank == rank]
        matches = {each.name: each.match(hashes) for each in usable}
        if generation.shares_prompt:
            # The others of its set process the prompt once, where the first one is.
            longest = max(usable, key=lambda each: matches[each.name])
            if matches[longest.name] >= len(generation.prompt_tokens) - BLOCK_TOKENS:
                return longest
        length = len(generation.prompt_tokens)
        return min(
            usable,
            key=lambda each: (
                length - matches[each.name] + each.busy_tokens,
                _preference(hashes, each.name),
            ),
        )


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 -- once a restart
        await anyio.sleep(RESTART_INTERVAL_S)


def _preference(hashes: Sequence[bytes], name: str) -> bytes:
    """Order engines differently for each project, and equally for all requests of one."""
    return blake2b((hashes[0] if hashes else b"") + name.encode(), digest_size=8).digest()


async def _watched(
    events: AsyncIterator[EngineEvent], work: Work, prompt_tokens: int
) -> AsyncIterator[EngineEvent]:
    """Pass events on, and note how much of the prompt is left."""
    async for event in events:
        match event:
            case Prefilled(done):
                work.waiting_tokens = max(0, prompt_tokens - done)
            case Token():
                work.waiting_tokens = 0
            case _:
                pass
        yield event
