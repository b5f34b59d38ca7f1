"""Idle engines: the worker is unloaded, and the next request starts another one."""

import os
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process

from pensieve.engine.client.client import IdlePolicy, running_engine
from pensieve.engine.client.launch import WorkerSpec, open_worker
from pensieve.engine.generation import Engine, EngineEvent, Finished, Generation, Started, Token
from pensieve.errors import EngineFailedError, LethalRequestError
from tests.engine.client.test_client import SCRIPTED_WORKER, died_on, ready, token_ids
from tests.engine.scripted_worker import CONTEXT_TOKENS, KILLER
from tests.engine.states import in_state

pytestmark = pytest.mark.anyio
SOON = IdlePolicy(unload_s=0.2, timeout_s=0.2)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Opener:
    """Opens workers with these scripts in order, then repeats the last one."""

    scripts: Sequence[str] = ("model",)
    opened: list[int] = field(default_factory=list)

    async def __call__(self, spec: WorkerSpec) -> tuple[Process, socket.socket]:
        script = self.scripts[min(len(self.opened), len(self.scripts) - 1)]
        process, connection = await open_worker(spec, (*SCRIPTED_WORKER, script))
        self.opened.append(process.pid)
        return process, connection


@asynccontextmanager
async def waking_engine(opener: Opener) -> AsyncGenerator[Engine]:
    spec = WorkerSpec(Path("model"), "cpu")
    async with running_engine(spec, open_worker=opener, idle=SOON) as engine:
        await ready(engine)
        yield engine


@asynccontextmanager
async def sleeping_engine(opener: Opener) -> AsyncGenerator[Engine]:
    async with waking_engine(opener) as engine:
        await in_state(engine, "asleep")
        yield engine


async def gone(pid: int) -> None:
    with anyio.fail_after(30), suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)
            await anyio.lowlevel.checkpoint()


async def all_events(engine: Engine, prompt: tuple[int, ...]) -> list[EngineEvent]:
    async with engine.generate(Generation(prompt, 2)) as events:
        return [event async for event in events]


async def test_idle_worker_exits_and_its_context_stays_known() -> None:
    opener = Opener()
    async with sleeping_engine(opener) as engine:
        await gone(opener.opened[0])
        health = engine.health
        assert (health.state, health.is_well, health.worker_pid) == ("asleep", True, None)
        assert (health.context_tokens, health.stats) == (CONTEXT_TOKENS, None)


async def test_request_to_a_sleeping_engine_is_started_at_once_and_answered() -> None:
    opener = Opener()
    async with sleeping_engine(opener) as engine:
        async with engine.generate(Generation((1, 2), 2)) as events:
            assert await anext(events) == Started(0)
            assert (len(opener.opened), engine.health.in_flight) == (1, 1)
            rest = [event async for event in events]
        assert rest[0] == Started(0)
        assert rest[-3:] == [Token(2), Token(3), Finished("length", 2)]
        assert (engine.health.state, engine.health.restarts) == ("ready", 0)


async def test_concurrent_requests_to_a_sleeping_engine_start_one_worker() -> None:
    opener = Opener(["roomy"])
    answers: dict[int, list[int]] = {}
    async with sleeping_engine(opener) as engine:

        async def ask(length: int) -> None:
            answers[length] = await token_ids(engine, (1,) * length)

        async with anyio.create_task_group() as tasks:
            for length in range(1, 9):
                tasks.start_soon(ask, length)
        assert len(opener.opened) == 2
    assert answers == {n: [n, n + 1, n + 2] for n in range(1, 9)}


async def test_engine_sleeps_and_wakes_repeatedly_without_restarts() -> None:
    opener = Opener()
    async with sleeping_engine(opener) as engine:
        for _ in range(3):
            assert await token_ids(engine, (1,)) == [1, 2, 3]
            await in_state(engine, "asleep")
        assert engine.health.restarts == 0
        assert (engine.health.sleeps, engine.health.wakes) == (4, 3)
    assert len(opener.opened) == 4


async def test_engine_does_not_sleep_while_a_request_is_open() -> None:
    opener = Opener()
    async with waking_engine(opener) as engine:
        with pytest.raises(TimeoutError):
            async with engine.generate(Generation((1,), 10**9)):
                await in_state(engine, "asleep", timeout_s=5 * SOON.unload_s)
        await in_state(engine, "asleep")
        await gone(opener.opened[0])


async def test_request_cancelled_during_wake_up_is_dropped() -> None:
    async with sleeping_engine(Opener()) as engine:
        async with engine.generate(Generation((1, 2), 2)) as events:
            await anext(events)
        assert engine.health.in_flight == 0
        await ready(engine)
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_worker_killed_during_wake_up_is_replaced_and_the_request_answered() -> None:
    opener = Opener(["model", "killed-at-start", "model"])
    async with sleeping_engine(opener) as engine:
        assert (await all_events(engine, (1, 2)))[-1] == Finished("length", 2)
        assert engine.health.restarts == 1
    assert len(opener.opened) == 3


async def test_model_that_is_gone_at_wake_up_fails_the_waiting_request() -> None:
    async with sleeping_engine(Opener(["model", "no-model"])) as engine:
        with pytest.raises(EngineFailedError, match="no weights here"):
            await all_events(engine, (1,))
        assert engine.health.state == "failed"
        assert engine.health.context_tokens == CONTEXT_TOKENS


async def test_engine_closed_during_wake_up_leaves_no_process() -> None:
    opener = Opener(["model", "never-loads"])
    async with sleeping_engine(opener) as engine, engine.generate(Generation((1,), 2)) as events:
        await anext(events)
        with anyio.fail_after(30):
            while len(opener.opened) < 2:
                await anyio.lowlevel.checkpoint()
    await gone(opener.opened[1])


async def test_worker_that_ignores_unload_is_killed_without_counting_as_a_death() -> None:
    opener = Opener(["stubborn"])
    async with sleeping_engine(opener) as engine:
        await gone(opener.opened[0])
        assert await token_ids(engine, (1,)) == [1, 2, 3]
        assert engine.health.restarts == 0


async def test_refused_prompt_does_not_wake_a_sleeping_engine() -> None:
    opener = Opener()
    lethal = (KILLER,) * 5
    async with waking_engine(opener) as engine:
        for _ in range(2):
            await died_on(engine, lethal)
        await in_state(engine, "asleep")
        before = len(opener.opened)
        with pytest.raises(LethalRequestError):
            await token_ids(engine, lethal)
        assert (engine.health.state, len(opener.opened)) == ("asleep", before)
