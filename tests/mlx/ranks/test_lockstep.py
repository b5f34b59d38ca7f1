"""Ranks in lock-step answer as one worker does: whole engines, each rank a process of its own.

PENSIEVE_RANKS=4 runs as many instead of two, and more families, one of experts.
"""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from pensieve.engine.client.client import running_engine
from pensieve.engine.client.launch import WorkerSpec
from pensieve.engine.generation import (
    Engine,
    Generation,
    Grammar,
    Logprobs,
    ResourceLimits,
    Sampling,
    Started,
    Token,
)
from tests.engine.states import in_state
from tests.mlx.ranks.test_shards import EXPERTS
from tests.support import tiny_models
from tests.support.ranks import Group

pytestmark = pytest.mark.anyio

RANKS = int(os.environ.get("PENSIEVE_RANKS", "2"))
FAMILIES: tuple[str, ...] = ("llama",)
if "PENSIEVE_RANKS" in os.environ:
    FAMILIES = ("llama", "qwen3", "phi3", "qwen3_moe")  # the third one in 4 bits
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4}
SIZES: dict[str, dict[str, Any]] = {
    "llama": {"head_dim": 64},
    "phi3": {"hidden_size": 128},
    "qwen3_moe": EXPERTS | {"head_dim": 16},
}
# Memory on each of two ranks for three answers of `GROWING`, but not to their ends.
LITTLE = ResourceLimits(memory_limit_bytes=1_114_500_000)
LONG = tuple((7 * place) % 249 + 1 for place in range(900))
SHORT = tuple((11 * place) % 241 + 1 for place in range(40))
GREEDY = Sampling(0)
STOPS = frozenset({0})
LETTERS = Grammar("start: /[a-e]{3,30}/")
COPYING = (SHORT * 6)[:230]

ALONE = {
    "greedy": Generation(SHORT, 30, sampling=GREEDY),
    "seeded": Generation(SHORT, 30, sampling=Sampling(0.8, 0.9, seed=7)),
    "in chunks": Generation(LONG, 20, sampling=GREEDY, pinned_tokens=600),
    "from memory": Generation((*LONG, 5, 6, 7), 20, sampling=GREEDY, pinned_tokens=600),
    "grammar": Generation(SHORT, 20, STOPS, GREEDY, grammar=LETTERS),
    "copying": Generation(COPYING, 60, sampling=GREEDY),
    "logprobs": Generation(SHORT[2:], 5, sampling=GREEDY, top_logprobs=2),
    "penalties": Generation(SHORT, 30, sampling=Sampling(0, repetition_penalty=1.3)),
}
TOGETHER = {
    "long side request": Generation(LONG[::-1], 20, sampling=GREEDY, priority="side"),
    "other": Generation(SHORT[::-1], 50, sampling=GREEDY),
    "seeded other": Generation((*SHORT[5:], 9), 50, sampling=Sampling(1.0, seed=3)),
    "other grammar": Generation(SHORT[3:], 30, STOPS, Sampling(0.9, seed=5), grammar=LETTERS),
}
# Longer than what is reserved for an answer when it begins.
GROWING = {
    "greedy": Generation(SHORT, 770, sampling=GREEDY),
    "seeded": Generation(SHORT[::-1], 770, sampling=Sampling(0.8, seed=1)),
    "other": Generation(SHORT[7:], 770, sampling=GREEDY),
}
# Of a prompt that is processed once.
CHOICES = [
    replace(ALONE["seeded"], sampling=Sampling(1.0, seed=seed), shares_prompt=True)
    for seed in (1, 2)
]
Answer = list[int | list[tuple[int, float]]]
Answers = dict[str, tuple[int | None, Answer]]


async def ask(
    engine: Engine, generation: Generation, most: int = 1000
) -> tuple[int | None, Answer]:
    """Return the cached tokens and the answer, cancelled after `most` tokens.

    Likeliest tokens follow each token, with two digits of their logarithmic probabilities: sums
    over ranks are rounded differently.
    """
    cached, tokens = None, Answer()
    async with engine.generate(generation) as events:
        async for event in events:
            match event:
                case Started(count):
                    cached = count
                case Token(token, None):
                    tokens.append(token)
                case Token(token, Logprobs(top=top)):
                    tokens += [token, [(each, round(number, 2)) for each, number in top]]
                case _:
                    pass
            if len(tokens) == most:
                break
    return cached, tokens


async def answers_of(engine: Engine) -> Answers:
    answers = {name: await ask(engine, generation) for name, generation in ALONE.items()}
    shown = SHORT + tuple(each for each in answers["greedy"][1] if isinstance(each, int))
    answers["hinted"] = await ask(engine, replace(ALONE["greedy"], max_tokens=29, hints=(shown,)))
    answers["cancelled"] = await ask(engine, replace(ALONE["greedy"], max_tokens=90), most=10)
    answers |= await answers_together(engine, dict(zip("12", CHOICES, strict=True)))
    return answers | await answers_together(engine, TOGETHER)


async def answers_together(engine: Engine, generations: Mapping[str, Generation]) -> Answers:
    together: Answers = {}

    async def ask_one(name: str) -> None:
        # What is cached depends on the order in which they end.
        together[name] = (None, (await ask(engine, generations[name]))[1])

    async with anyio.create_task_group() as tasks:
        for name in generations:
            tasks.start_soon(ask_one, name)
    return together


def build(family: str, folder: Path) -> Path:
    kind: tiny_models.Kind
    match family:
        case "llama" | "phi3" | "qwen3":
            kind = family
        case _:
            kind = "qwen3"
    sizes = {"model_type": family} | HEADS | SIZES.get(family, {})
    return tiny_models.build(kind, folder, **sizes)


@asynccontextmanager
async def ready(spec: WorkerSpec, group: Group | None = None) -> AsyncGenerator[Engine]:
    options: dict[str, Any] = {"open_worker": group.opener} if group else {}
    async with running_engine(spec, **options) as engine:
        await in_state(engine, "ready", timeout_s=60)
        yield engine


@pytest.mark.parametrize("family", FAMILIES)
async def test_ranks_answer_as_one_worker_does(family: str, tmp_path: Path) -> None:
    folder = build(family, tmp_path / "model")
    async with ready(WorkerSpec(folder, "cpu")) as engine:
        alone = await answers_of(engine)
    group = Group(RANKS, tmp_path / "prefixes")
    async with ready(WorkerSpec(folder, "cpu"), group) as engine:
        assert await answers_of(engine) == alone
    assert group.lead is not None
    assert group.lead.returncode == 0
    assert len(set(map(str, alone.values()))) == len(alone)


async def test_a_prefix_on_disk_is_as_long_as_the_rank_with_least_of_it(tmp_path: Path) -> None:
    folder, group = build("llama", tmp_path / "model"), Group(2, tmp_path / "prefixes")
    spec = WorkerSpec(folder, "cpu", group.prefixes(0))
    first = Generation(LONG, 4, sampling=GREEDY, pinned_tokens=600)
    again = Generation((*LONG, 8, 9), 20, sampling=GREEDY)
    async with ready(spec, group) as engine:
        await ask(engine, first)
    async with ready(spec, group) as engine:
        whole = await ask(engine, again)
    assert whole[0] == len(LONG)
    for change, most in ((damage, 600), (Path.unlink, 0)):
        for file in group.prefixes(1).rglob("*.kv"):
            change(file)
        async with ready(spec, group) as engine:
            cached, tokens = await ask(engine, again)
        assert tokens == whole[1]
        assert cached is not None
        assert cached <= most


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40] + b"x" * 40)


if "PENSIEVE_RANKS" in os.environ:  # several starts; what decides is tested without MLX

    async def test_ranks_return_the_same_request_to_the_queue_when_memory_is_short(
        tmp_path: Path,
    ) -> None:
        folder, group = build("llama", tmp_path / "model"), Group(2, tmp_path / "prefixes")
        async with ready(WorkerSpec(folder, "cpu")) as engine:
            alone = await answers_together(engine, GROWING)
        async with ready(WorkerSpec(folder, "cpu", limits=LITTLE), group) as engine:
            assert await answers_together(engine, GROWING) == alone
            with anyio.fail_after(10):
                while not (engine.health.stats and engine.health.stats.preempted):
                    await anyio.sleep(0.05)

    async def test_the_rank_with_least_memory_decides_on_the_context(tmp_path: Path) -> None:
        folder = build("llama", tmp_path / "model")
        little = ResourceLimits(memory_limit_bytes=1_450_000_000)
        group = Group(2, tmp_path / "prefixes", limits=[little])
        async with ready(WorkerSpec(folder, "cpu"), group) as engine:
            shared = engine.health.context_tokens
        async with ready(WorkerSpec(folder, "cpu", limits=little)) as engine:
            alone = engine.health.context_tokens
        async with ready(WorkerSpec(folder, "cpu")) as engine:
            assert engine.health.context_tokens is not None
            assert shared is not None
            assert alone is not None
            assert alone <= shared <= engine.health.context_tokens
