"""The router, over engines that cache prefixes by script."""

import random
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.client.prefix_table import BLOCK_TOKENS, PrefixTable, block_hashes
from pensieve.engine.client.router import Replica, Router
from pensieve.engine.generation import (
    EngineEvent,
    EngineHealth,
    EngineState,
    Finished,
    Generation,
    Prefilled,
    Started,
    Token,
)
from pensieve.errors import EngineBusyError, WorkerDiedError

pytestmark = pytest.mark.anyio
SYSTEM = tuple(range(1, 401))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class CachingEngine:
    """Finds the longest prefix of earlier prompts, as an engine with enough memory does."""

    state: EngineState = "ready"
    prompts: set[bytes] = field(default_factory=set)
    answered: int = 0
    cached_tokens: int = 0
    open: int = 0
    expected: int = 0
    gate: anyio.Event | None = None
    number: int = 0
    deaths: int = 0
    reloads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def health(self) -> EngineHealth:
        return EngineHealth(
            self.state,
            in_flight=self.open,
            context_tokens=1000,
            restarts_by_cause={"decode": self.deaths},
        )

    @contextmanager
    def expect(self) -> Generator[None]:
        self.expected += 1
        yield
        self.expected -= 1

    def reload(self) -> None:
        self.reloads.append((self.number, self.open))

    def die(self) -> None:
        self.state, self.prompts = "loading", set()
        self.deaths += 1

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncGenerator[AsyncIterator[EngineEvent]]:
        if self.state == "loading":
            raise EngineBusyError("loading")
        self.open += 1
        try:
            yield self._events(generation)
        finally:
            self.open -= 1

    async def _events(self, generation: Generation) -> AsyncIterator[EngineEvent]:
        hashes = block_hashes(generation.prompt_tokens)
        cached = BLOCK_TOKENS * sum(each in self.prompts for each in hashes)
        self.cached_tokens += cached
        yield Started(cached)
        await anyio.lowlevel.checkpoint()
        if self.gate:
            await self.gate.wait()
        if self.state == "loading":
            raise WorkerDiedError("it died")
        self.prompts.update(hashes)
        yield Prefilled(len(generation.prompt_tokens))
        yield Token(7)
        await anyio.lowlevel.checkpoint()
        self.answered += 1
        yield Finished("length", 1)


def router_of(*engines: CachingEngine) -> Router:
    return Router([Replica(f"worker-{n}", each) for n, each in enumerate(engines, 1)])


async def run(router: Router, tokens: tuple[int, ...]) -> int:
    """Run one generation, again if its worker dies; return its cached tokens."""
    cached = 0
    for _ in range(10):
        with suppress(WorkerDiedError):
            async with router.generate(Generation(tokens, 1)) as events:
                async for event in events:
                    if isinstance(event, Started):
                        cached = event.cached_tokens
            return cached
    raise AssertionError("ten workers died")


async def test_two_hundred_sessions_over_three_engines_find_their_prefixes() -> None:
    engines = [CachingEngine() for _ in range(3)]
    router = router_of(*engines)
    chance = random.Random(1)
    cached, shared = await converse(router, chance, engines, dies_at=None)
    assert cached >= 0.95 * shared
    assert min(engine.answered for engine in engines) > 200


async def test_sessions_of_a_dead_engine_go_on_elsewhere() -> None:
    engines = [CachingEngine() for _ in range(3)]
    router = router_of(*engines)
    await converse(router, random.Random(2), engines, dies_at=2)
    assert sum(engine.answered for engine in engines) == 200 * 5
    assert all(not replica.open for replica in router.replicas)


async def converse(
    router: Router, chance: random.Random, engines: list[CachingEngine], dies_at: int | None
) -> tuple[int, int]:
    """Run 200 sessions of 5 turns, 12 at once; return cached tokens and those of earlier turns."""
    cached = shared = 0
    limit = anyio.Semaphore(12)

    async def session(number: int) -> None:
        nonlocal cached, shared
        prompt = (*SYSTEM, *(500 + number,) * BLOCK_TOKENS * 3)
        for turn in range(5):
            async with limit:
                found = await run(router, prompt)
            if turn:
                cached += found
                shared += (len(prompt) - 2 * BLOCK_TOKENS) // BLOCK_TOKENS * BLOCK_TOKENS
            prompt = (*prompt, *(chance.randrange(1000) for _ in range(2 * BLOCK_TOKENS)))
            if number == 100 and turn == dies_at:
                engines[0].die()

    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(session, number)
    return cached, shared


async def test_conversation_stays_until_waiting_costs_more_than_its_prompt() -> None:
    engines = [CachingEngine(gate=anyio.Event()), CachingEngine(gate=anyio.Event())]
    router = router_of(*engines)
    prompt = SYSTEM * 2
    opened: list[list[int]] = []
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(run, router, prompt)
            await anyio.wait_all_tasks_blocked()
            opened.append(sorted(engine.open for engine in engines))
        for engine in engines:
            assert engine.gate
            engine.gate.set()
    # The second one finds its prompt on the first's engine, but would wait for all of it there.
    assert opened == [[0, 1], [1, 1], [1, 2], [2, 2], [2, 3]]
    assert sum(engine.answered for engine in engines) == 5


async def test_next_turn_of_a_conversation_goes_where_its_prefix_is() -> None:
    engines = [CachingEngine() for _ in range(3)]
    router = router_of(*engines)
    prompt = SYSTEM
    for turn in range(6):
        await run(router, prompt)
        prompt = (*prompt, *(turn,) * 2 * BLOCK_TOKENS)
    assert sorted(engine.answered for engine in engines) == [0, 0, 6]


async def test_set_that_shares_its_prompt_stays_together() -> None:
    first, second = CachingEngine(gate=anyio.Event()), CachingEngine(gate=anyio.Event())
    router = router_of(first, second)
    prompt = SYSTEM * 2
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(generate_shared, router, prompt)
            await anyio.wait_all_tasks_blocked()
        assert sorted((first.open, second.open)) == [0, 4]
        for engine in (first, second):
            assert engine.gate
            engine.gate.set()


async def generate_shared(router: Router, tokens: tuple[int, ...]) -> None:
    async with router.generate(Generation(tokens, 1, shares_prompt=True)) as events:
        async for _ in events:
            pass


@pytest.mark.parametrize("state", ["loading", "failed"])
async def test_engine_that_is_not_ready_gets_nothing_while_another_is(state: EngineState) -> None:
    away, ready = CachingEngine(state), CachingEngine()
    router = router_of(away, ready)
    for number in range(20):
        await run(router, (number + 1,) * 100)
    assert (away.answered, ready.answered) == (0, 20)
    assert router.health.state == "ready"


async def test_conversation_does_not_return_to_an_engine_that_lost_it() -> None:
    engines = [CachingEngine(), CachingEngine()]
    router = router_of(*engines)
    await run(router, SYSTEM)
    home, other = sorted(engines, key=lambda engine: -engine.answered)
    home.die()
    await run(router, SYSTEM)
    home.state = "ready"
    assert await run(router, SYSTEM) > 0
    assert (home.answered, other.answered) == (1, 2)


async def test_drained_engine_gets_nothing_unless_it_is_the_only_one() -> None:
    first, second = CachingEngine(), CachingEngine()
    router = router_of(first, second)
    router.replicas[0].is_drained = True
    for number in range(20):
        await run(router, (number + 1,) * 100)
    assert (first.answered, second.answered) == (0, 20)


async def test_engines_are_restarted_one_after_another_without_open_requests() -> None:
    reloads: list[tuple[int, int]] = []
    engines = [CachingEngine(number=number, reloads=reloads) for number in range(3)]
    router = router_of(*engines)
    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(run, router, (number + 1,) * 100)
        tasks.start_soon(router.restart_each)
    assert reloads == [(0, 0), (1, 0), (2, 0)]
    assert sum(engine.answered for engine in engines) == 60
    assert not any(replica.is_drained for replica in router.replicas)


async def test_health_is_the_sum_and_the_best_state() -> None:
    first, second = CachingEngine("loading"), CachingEngine(open=2)
    health = router_of(first, second).health
    assert (health.state, health.in_flight, health.context_tokens) == ("ready", 2, 1000)
    assert [each.state for each in health.replicas.values()] == ["loading", "ready"]


async def test_all_engines_expect_what_is_being_prepared() -> None:
    engines = [CachingEngine(), CachingEngine()]
    with router_of(*engines).expect():
        assert [engine.expected for engine in engines] == [1, 1]
    assert [engine.expected for engine in engines] == [0, 0]


@given(st.lists(st.integers(0, 3), max_size=400), st.integers(0, 400))
def test_blocks_match_up_to_the_first_difference(tokens: list[int], at: int) -> None:
    table = PrefixTable()
    table.add(block_hashes(tokens))
    changed = list(tokens)
    if at < len(tokens):
        changed[at] += 1
    common = min(at, len(tokens)) // BLOCK_TOKENS * BLOCK_TOKENS
    assert table.match(block_hashes(changed)) == common


def test_table_forgets_what_was_sent_longest_ago() -> None:
    table = PrefixTable(max_blocks=4)
    old, new = block_hashes([1] * 4 * BLOCK_TOKENS), block_hashes([2] * 2 * BLOCK_TOKENS)
    table.add(old)
    table.add(new)
    assert len(table) == 4
    assert table.match(new) == 2 * BLOCK_TOKENS
    assert table.match(old) == 0
