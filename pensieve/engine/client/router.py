"""One engine made of several: each request goes where it is answered first.

That is where the longest part of its prompt is cached, unless waiting there costs more than
processing it elsewhere. So a conversation stays with one engine, and moves when that is busy, dead
or drained. Which prompts an engine has is the router's own record of what it sent there.

Costs are tokens of a prompt, as long as the fastest machine takes for them.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

import anyio

from pensieve.engine.client.combined_health import combined
from pensieve.engine.client.prefix_table import PrefixTable, block_hashes
from pensieve.engine.client.prompt_speeds import PromptSpeeds
from pensieve.engine.generation import (
    Engine,
    EngineEvent,
    EngineHealth,
    EngineState,
    Generation,
    Prefilled,
    Started,
    Token,
)

_log = logging.getLogger("pensieve.engine")

# What an answer next to a prompt costs it: they share the engine's time.
ANSWER_TOKENS = 256
# What loading an unloaded model costs.
WAKE_TOKENS = 4096
# Of the tokens that an ended worker had.
LOST_SHARE = 7 / 8
RESTART_INTERVAL_S = 0.05
# An engine that takes requests is chosen before any other.
_STATES: tuple[EngineState, ...] = ("ready", "asleep", "loading", "failed")


@dataclass(slots=True, eq=False)
class Work:
    """One open request of an engine."""

    generation: Generation
    waiting_tokens: int  # of its prompt, not processed yet

    @property
    def tokens(self) -> int:
        return self.waiting_tokens + ANSWER_TOKENS

    def note(self, event: EngineEvent) -> None:
        """Keep count of what is left of the prompt."""
        match event:
            case Started(done) | Prefilled(done):
                self.waiting_tokens = max(0, len(self.generation.prompt_tokens) - done)
            case Token():
                self.waiting_tokens = 0
            case _:
                pass


class ReloadableEngine(Engine, Protocol):
    def reload(self) -> None:
        """Replace a worker that has no open requests, or start a failed one again.

        The state is `loading` meanwhile.
        """
        ...


@dataclass(slots=True, eq=False)
class Replica:
    name: str
    engine: ReloadableEngine
    host: str = ""  # empty: this machine
    table: PrefixTable = field(default_factory=PrefixTable)
    open: set[Work] = field(default_factory=set[Work])
    is_drained: bool = False  # takes no new requests while another one does
    lost: PrefixTable = field(default_factory=PrefixTable)  # sent to workers that have ended
    _restarts: int = 0  # of its worker, when the table was last used

    def match(self, hashes: Sequence[bytes]) -> int:
        """Return how many first tokens its worker has. What an ended one had counts less: the disk
        has it, or no one, while another engine has it for sure if the conversation went on there.
        """
        if (restarts := self.engine.health.restarts) != self._restarts:
            self.lost.load(self.table.dump())
            self.table, self._restarts = PrefixTable(), restarts
        return max(self.table.match(hashes), int(LOST_SHARE * self.lost.match(hashes)))

    @property
    def state(self) -> EngineState:
        return self.engine.health.state

    @property
    def rank(self) -> int:
        """Lower is better."""
        return _STATES.index("ready" if self.state == "asleep" else self.state) + self.is_drained

    @property
    def busy_tokens(self) -> int:
        wake = WAKE_TOKENS if self.state == "asleep" else 0
        return wake + sum(work.tokens for work in self.open)

    def is_at_work_on(self, prompt: Sequence[int]) -> bool:
        return any(work.generation.prompt_tokens == prompt for work in self.open)


class Router:
    """Implements `Engine`. Used on the event loop alone."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = tuple(replicas)
        self._speeds = PromptSpeeds()

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
        work = Work(generation, len(generation.prompt_tokens) - replica.match(hashes))
        replica.open.add(work)
        # At once, so that later ones find it. A batch would displace the conversations.
        added = [] if _is_side(generation) else replica.table.add(hashes)
        is_accepted = False
        try:
            async with replica.engine.generate(generation) as events:
                is_accepted = True
                yield _noting(events, work)
        finally:
            replica.open.remove(work)
            if not is_accepted:
                replica.table.discard(added)

    def choose(self, generation: Generation, hashes: Sequence[bytes]) -> Replica:
        """Return the engine that is to answer."""
        rank = min(each.rank for each in self.replicas)
        usable = [each for each in self.replicas if each.rank == rank]
        if generation.shares_prompt:
            # The prompt is processed once, where the first one of the set is.
            prompt = generation.prompt_tokens
            usable = [each for each in usable if each.is_at_work_on(prompt)] or usable
        self._note_speeds()
        length = len(generation.prompt_tokens)

        def cost(replica: Replica) -> tuple[float, float, bytes]:
            slowdown = self._speeds.slowdown(replica.host)
            busy = replica.busy_tokens * slowdown
            whole = busy + (length - replica.match(hashes)) * slowdown
            first = busy if _is_side(generation) else whole
            return first, whole, _preference(hashes, replica.name)

        return min(usable, key=cost)

    async def restart_each(self) -> None:
        """Restart the engines one after another, while the others take the requests."""
        for replica in self.replicas:
            if replica.state == "loading":
                _log.info("%s is not restarted: it is being started", replica.name)
                continue
            await self._restart(replica)
            _log.info("%s was restarted: %s", replica.name, replica.state)
            if replica.state == "failed":
                _log.error("the engines after %s are not restarted", replica.name)
                return

    async def _restart(self, replica: Replica) -> None:
        _log.info("%s takes no requests until it is restarted", replica.name)
        replica.is_drained = True
        try:
            await _until(lambda: self._can_restart(replica))
            replica.engine.reload()
            await _until(lambda: replica.state != "loading")
        finally:
            replica.is_drained = False

    def _can_restart(self, replica: Replica) -> bool:
        """Whether it has no open request, and is not the last one while others come back."""
        others = [each.state for each in self.replicas if each is not replica]
        is_last = not {"ready", "asleep"}.intersection(others)
        return not replica.open and not (is_last and "loading" in others)

    def _note_speeds(self) -> None:
        for each in self.replicas:
            if stats := each.engine.health.stats:
                self._speeds.note(each.host, stats.prompt_tokens_per_second)


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 -- once a restart
        await anyio.sleep(RESTART_INTERVAL_S)


def _is_side(generation: Generation) -> bool:
    return generation.priority in {"side", "batch"}


def _preference(hashes: Sequence[bytes], name: str) -> bytes:
    """Order engines differently for each project, and equally for all requests of one."""
    return blake2b((hashes[0] if hashes else b"") + name.encode(), digest_size=8).digest()


async def _noting(events: AsyncIterator[EngineEvent], work: Work) -> AsyncIterator[EngineEvent]:
    async for event in events:
        work.note(event)
        yield event
