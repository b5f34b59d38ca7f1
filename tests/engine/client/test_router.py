"""The router, over engines that cache prefixes by script."""

import random
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import get_args

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.client.prefix_table import BLOCK_TOKENS, PrefixTable, block_hashes
from pensieve.engine.client.router import ANSWER_TOKENS, WAKE_TOKENS, Replica, Router
from pensieve.engine.generation import (
    PRIORITIES,
    EngineEvent,
    EngineHealth,
    EngineState,
    EngineStats,
    Finished,
    Generation,
    Prefilled,
    Priority,
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
    state_after_reload: EngineState = "ready"
    speed: float = 0.0  # of prompts

    @property
    def health(self) -> EngineHealth:
        stats = EngineStats(8, "by script", 1, 2, 3, prompt_tokens_per_second=self.speed)
        return EngineHealth(
            self.state,
            in_flight=self.open,
            context_tokens=1000,
            restarts_by_cause={"decode": self.deaths},
            stats=stats,
        )

    @contextmanager
    def expect(self) -> Generator[None]:
        self.expected += 1
        yield
        self.expected -= 1

    def reload(self) -> None:
        self.reloads.append((self.number, self.open))
        self.state = self.state_after_reload

    def die(self) -> None:
        self.state, self.prompts = "loading", set()
        self.deaths += 1

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncGenerator[AsyncIterator[EngineEvent]]:
        if self.state in {"loading", "failed"}:
            raise EngineBusyError(self.state)
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


async def test_processed_part_of_a_prompt_does_not_count_as_work() -> None:
    router = router_of(CachingEngine())
    async with router.generate(Generation(SYSTEM, 1)) as events:
        left = [router.replicas[0].busy_tokens - ANSWER_TOKENS async for _ in events]
    assert left == [len(SYSTEM), 0, 0, 0]
    async with router.generate(Generation(SYSTEM, 1)) as events:
        assert router.replicas[0].busy_tokens - ANSWER_TOKENS == len(SYSTEM) % BLOCK_TOKENS
        router.replicas[0].table.discard(block_hashes(SYSTEM))
        await anext(events)
        assert router.replicas[0].busy_tokens - ANSWER_TOKENS == len(SYSTEM) % BLOCK_TOKENS


async def test_projects_are_divided_among_idle_engines_the_same_way_each_time() -> None:
    chosen: list[list[str]] = []
    for _ in range(2):
        router = router_of(CachingEngine(), CachingEngine())
        prompts = [(number + 1,) * 100 for number in range(20)]
        replicas = [router.choose(Generation(each, 1), block_hashes(each)) for each in prompts]
        chosen.append([each.name for each in replicas])
    assert chosen[0] == chosen[1]
    assert set(chosen[0]) == {"worker-1", "worker-2"}


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


async def test_set_of_short_prompts_is_no_reason_for_another_to_join_it() -> None:
    engines = [CachingEngine(gate=anyio.Event()) for _ in range(2)]
    router = router_of(*engines)
    async with anyio.create_task_group() as tasks:
        for token in (1, 2):
            for _ in range(3):
                tasks.start_soon(generate_shared, router, (token,) * 10)
                await anyio.wait_all_tasks_blocked()
        assert [engine.open for engine in engines] == [3, 3]
        open_gates(engines)


def open_gates(engines: list[CachingEngine]) -> None:
    for engine in engines:
        assert engine.gate
        engine.gate.set()


@pytest.mark.parametrize("priority", ["side", "batch"])
async def test_side_request_goes_to_the_least_busy_engine_and_is_not_recorded(
    priority: Priority,
) -> None:
    engines = [CachingEngine(), CachingEngine()]
    router = router_of(*engines)
    prompt = SYSTEM * 40
    await run(router, prompt)
    home, other = sorted(router.replicas, key=lambda replica: -len(replica.table))
    for engine in engines:
        engine.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, router, prompt)
        await anyio.wait_all_tasks_blocked()
        assert [len(each.open) for each in (home, other)] == [1, 0]
        # The conversation itself would wait for that.
        tasks.start_soon(generate_as, router, prompt, priority)
        await anyio.wait_all_tasks_blocked()
        assert [len(each.open) for each in (home, other)] == [1, 1]
        assert len(other.table) == 0
        open_gates(engines)


async def generate_as(router: Router, tokens: tuple[int, ...], priority: Priority) -> None:
    async with router.generate(Generation(tokens, 1, priority=priority)) as events:
        async for _ in events:
            pass


async def test_refused_prompt_is_not_recorded() -> None:
    engines = [CachingEngine("loading"), CachingEngine("loading")]
    router = router_of(*engines)
    with pytest.raises(EngineBusyError):
        await run(router, SYSTEM)
    assert [len(replica.table) for replica in router.replicas] == [0, 0]
    assert not any(replica.open for replica in router.replicas)


async def test_slow_machine_gets_a_prompt_only_if_the_fast_one_is_busier_for_longer() -> None:
    fast, slow = (CachingEngine(gate=anyio.Event(), speed=speed) for speed in (1000.0, 250.0))
    router = Router([Replica("fast", fast, "fast.local"), Replica("slow", slow, "slow.local")])
    opened: list[tuple[int, int]] = []
    async with anyio.create_task_group() as tasks:
        for number in range(7):
            tasks.start_soon(run, router, (number + 1,) * 10 * ANSWER_TOKENS)
            await anyio.wait_all_tasks_blocked()
            opened.append((fast.open, slow.open))
        open_gates([fast, slow])
    # On the slow one each costs 4 times as much.
    assert opened[:5] == [(1, 0), (2, 0), (3, 0), (3, 1), (4, 1)]
    assert fast.answered + slow.answered == 7


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


async def test_conversation_that_has_not_moved_returns_to_its_engine_and_its_disk() -> None:
    engines = [CachingEngine(), CachingEngine()]
    router = router_of(*engines)
    # The other engine gets their common beginning first.
    prompts = [SYSTEM * 8 + (number + 1,) * 10 * BLOCK_TOKENS for number in range(8)]
    router.replicas[0].is_drained = True
    for prompt in prompts:
        await run(router, prompt)
    router.replicas[0].is_drained = False
    engines[1].die()
    await run(router, SYSTEM * 8)
    engines[1].state = "ready"
    for prompt in prompts:
        await run(router, prompt)
    assert [engine.answered for engine in engines] == [1, 16]


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


async def test_rolling_restart_ends_at_an_engine_that_fails() -> None:
    reloads: list[tuple[int, int]] = []
    engines = [CachingEngine(number=number, reloads=reloads) for number in range(3)]
    engines[1].state_after_reload = "failed"
    router = router_of(*engines)
    await router.restart_each()
    assert [number for number, _ in reloads] == [0, 1]
    assert not any(replica.is_drained for replica in router.replicas)


async def test_rolling_restart_starts_a_failed_engine_again_and_skips_one_that_loads() -> None:
    reloads: list[tuple[int, int]] = []
    failed, loading, ready = (
        CachingEngine(state, number=number, reloads=reloads)
        for number, state in enumerate(("failed", "loading", "ready"))
    )
    failed.state_after_reload = "ready"
    router = router_of(failed, loading, ready)
    await router.restart_each()
    assert [number for number, _ in reloads] == [0, 2]
    assert failed.state == "ready"


async def test_last_engine_is_not_restarted_while_another_one_comes_back() -> None:
    first, second = CachingEngine(number=1), CachingEngine("loading", number=2)
    router = router_of(first, second)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(router.restart_each)
        await anyio.wait_all_tasks_blocked()
        await run(router, SYSTEM)
        assert (first.answered, first.reloads) == (1, [])
        second.state = "ready"
    assert first.reloads == [(1, 0)]


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
    # Of one prompt, the last blocks go first.
    assert table.match(old) == 2 * BLOCK_TOKENS
    table.add(block_hashes([3] * 2 * BLOCK_TOKENS))
    assert (table.match(old), table.match(new)) == (0, 2 * BLOCK_TOKENS)


@dataclass
class Open:
    """What a property test does: opens a request."""

    prompt: tuple[int, ...]
    priority: Priority
    is_shared: bool


@dataclass
class Read:
    """Reads one event of an open request; or, if it has died, its error."""

    request: int


@dataclass
class Close:
    request: int


@dataclass
class Become:
    engine: int
    state: EngineState


PROMPTS = st.tuples(st.integers(1, 3), st.integers(1, 5 * BLOCK_TOKENS)).map(
    lambda pair: (pair[0],) * pair[1]
)
STEPS = st.one_of(
    st.builds(Open, PROMPTS, st.sampled_from(PRIORITIES), st.booleans()),
    st.builds(Read, st.integers(0, 9)),
    st.builds(Close, st.integers(0, 9)),
    st.builds(Become, st.integers(0, 2), st.sampled_from(get_args(EngineState))),
)
MAX_BLOCKS = 7


@given(st.lists(STEPS, max_size=40))
def test_each_accepted_request_is_on_one_engine_that_takes_requests(steps: list[object]) -> None:
    anyio.run(follow, steps)


async def follow(steps: list[object]) -> None:
    engines = [CachingEngine() for _ in range(3)]
    router = Router(
        [Replica(f"{n}", each, table=PrefixTable(MAX_BLOCKS)) for n, each in enumerate(engines)]
    )
    opened: list[tuple[AsyncExitStack, AsyncIterator[EngineEvent]]] = []
    for step in steps:
        match step:
            case Open():
                if request := await opened_by(router, engines, step):
                    opened.append(request)
            case Read(number) if number < len(opened):
                with suppress(WorkerDiedError):
                    await anext(opened[number][1], None)
            case Close(number) if number < len(opened):
                await opened.pop(number)[0].aclose()
            case Become(number, state):
                engines[number].state = state
            case _:
                pass
        assert [len(each.open) for each in router.replicas] == [each.open for each in engines]
        assert sum(engine.open for engine in engines) == len(opened)
        assert all(len(each.table) <= MAX_BLOCKS for each in router.replicas)
    for stack, _ in opened:
        await stack.aclose()
    assert all(each.busy_tokens in {0, WAKE_TOKENS} for each in router.replicas)
    assert not any(each.open for each in router.replicas)


async def opened_by(
    router: Router, engines: list[CachingEngine], step: Open
) -> tuple[AsyncExitStack, AsyncIterator[EngineEvent]] | None:
    """Open a request, which is refused only if every engine refuses it."""
    before = [engine.open for engine in engines]
    generation = Generation(step.prompt, 1, priority=step.priority, shares_prompt=step.is_shared)
    async with AsyncExitStack() as stack:
        try:
            events = await stack.enter_async_context(router.generate(generation))
        except EngineBusyError:
            assert not any(engine.health.is_well for engine in engines)
            assert [engine.open for engine in engines] == before
            return None
        grown = [each for each, count in zip(engines, before, strict=True) if each.open > count]
        assert [engine.health.is_well for engine in grown] == [True]
        return stack.pop_all(), events
    raise AssertionError
