"""Tests hostile grammars in the real worker process with a tiny model, while it answers others.

Uses every fourth by default; `PENSIEVE_EVERY=1 pytest tests/mlx/test_grammar_worker.py` for all.
"""

import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from pensieve.engine.client.client import running_engine
from pensieve.engine.client.launch import WorkerSpec
from pensieve.engine.generation import Engine, Finished, Generation, Grammar, Sampling, Token
from pensieve.errors import GrammarError
from tests.engine import grammar_cases as cases
from tests.engine.states import in_state
from tests.support import tiny_models
from tests.support.device import DEVICE

pytestmark = pytest.mark.anyio

# Two compiler threads run at the same time.
MAX_GAP_S = 1.0
HOSTILE_NAMES = list(cases.HOSTILE)[:: int(os.environ.get("PENSIEVE_EVERY", "4"))]
NO_TOKEN = frozenset({436})


@asynccontextmanager
async def ready_engine(folder: Path) -> AsyncGenerator[Engine]:
    async with running_engine(WorkerSpec(folder, DEVICE)) as engine:
        await in_state(engine, "ready", timeout_s=60)
        yield engine


def with_grammar(lark: str, max_tokens: int = 4) -> Generation:
    return Generation((3, 4, 5), max_tokens, NO_TOKEN, Sampling(seed=1), grammar=Grammar(lark))


async def outcome(engine: Engine, lark: str) -> str:
    """Return how a hostile request ends: refused, or answered to its length."""
    try:
        async with engine.generate(with_grammar(lark)) as events:
            return [event async for event in events][-1].__class__.__name__
    except GrammarError:
        return "GrammarError"


async def longest_gap_s(engine: Engine, until: anyio.Event) -> float:
    """Return the longest time between two tokens of an unrelated request."""
    gaps: list[float] = []
    while not until.is_set():
        last = time.monotonic()
        async with engine.generate(Generation((6, 7), 500)) as events:
            async for event in events:
                if isinstance(event, Token):
                    gaps.append(time.monotonic() - last)
                    last = time.monotonic()
    return max(gaps)


async def test_engine_answers_others_during_hostile_grammars(tmp_path: Path) -> None:
    async with ready_engine(tiny_models.build("qwen3", tmp_path)) as engine:
        pid = engine.health.worker_pid
        outcomes: dict[str, str] = {}
        done, gaps = anyio.Event(), []
        at_once = anyio.CapacityLimiter(16)

        async def keep_answering() -> None:
            gaps.append(await longest_gap_s(engine, done))

        async def ask(name: str) -> None:
            async with at_once:
                outcomes[name] = await outcome(engine, cases.HOSTILE[name])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_answering)
            async with anyio.create_task_group() as hostile:
                for name in HOSTILE_NAMES:
                    hostile.start_soon(ask, name)
            done.set()
        assert set(outcomes.values()) == {"GrammarError", "Finished"}
        assert gaps[0] < MAX_GAP_S
        assert (engine.health.state, engine.health.worker_pid) == ("ready", pid)
        async with engine.generate(with_grammar('start: "a"', max_tokens=5)) as events:
            assert [event async for event in events][-1] == Finished("stop_token", 2)
