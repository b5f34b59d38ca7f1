"""Prompts with pictures through whole engines: alone, together, cached, restored, interrupted."""

from collections.abc import AsyncGenerator, Sequence
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
    Logprobs,
    ResourceLimits,
    Sampling,
    Started,
    Token,
)
from pensieve.engine.pictures import PromptPicture, picture_token
from pensieve.errors import EngineBusyError, EngineError
from tests.engine.states import in_state
from tests.mlx.vision.models import build, prompt_pictures, prompt_tokens

pytestmark = pytest.mark.anyio

# What follows the pictures; long enough that prefixes are kept on disk.
TAIL = tuple(range(30, 230)) * 3
# Between differently rounded sums.
TOLERANCE = 0.01


def asked(pictures: Sequence[int], tail: Sequence[int] = TAIL, tokens: int = 6) -> Generation:
    prompt = (*prompt_tokens(pictures), *tail)
    return Generation(
        prompt,
        tokens,
        boundaries=(len(prompt) - 100,),
        pictures=prompt_pictures(pictures),
        sampling=Sampling(0),
        top_logprobs=1,
    )


# Two of the same size.
ASKED = {
    "one": asked((0,)),
    "two": asked((1, 2)),
    "same size, other picture": replace(
        asked((1, 2)),
        prompt_tokens=(*prompt_tokens((1, 2)), *TAIL[::-1]),
    ),
    "none": asked(()),
}
Answer = tuple[int, list[int], list[float]]


async def ask(engine: Engine, generation: Generation) -> Answer:
    cached, tokens, numbers = 0, list[int](), list[float]()
    async with engine.generate(generation) as events:
        async for event in events:
            match event:
                case Started(count):
                    cached = count
                case Token(token, Logprobs(number)):
                    tokens.append(token)
                    numbers.append(number)
                case _:
                    pass
    return cached, tokens, numbers


def assert_same(found: Answer, expected: Answer, tolerance: float = TOLERANCE) -> None:
    assert found[1] == expected[1]
    assert found[2] == pytest.approx(expected[2], abs=tolerance)


@asynccontextmanager
async def ready(
    folder: Path, prefixes: Path | None = None, **spec: object
) -> AsyncGenerator[Engine]:
    async with running_engine(WorkerSpec(folder, "cpu", prefixes, **spec)) as engine:  # type: ignore[arg-type]
        await in_state(engine, "ready", timeout_s=60)
        yield engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen3_5", tmp_path_factory.mktemp("sees"), "mlx")


async def test_conversations_continue_cold_cached_together_and_restored(
    folder: Path, tmp_path: Path
) -> None:
    async with ready(folder, has_speculation=False) as engine:
        first = {name: await ask(engine, generation) for name, generation in ASKED.items()}
    turns = {name: continued(ASKED[name], answer[1]) for name, answer in first.items()}
    async with ready(folder, has_speculation=False) as engine:
        cold = {name: await ask(engine, turn) for name, turn in turns.items()}
    assert len({str(answer) for answer in cold.values()}) == len(ASKED)
    last = {name: continued(turn, cold[name][1]) for name, turn in turns.items()}
    async with ready(folder, has_speculation=False) as engine:
        coldest = {name: await ask(engine, turn) for name, turn in last.items()}
    async with ready(folder, tmp_path, has_speculation=False) as engine:
        together: dict[str, Answer] = {}

        async def ask_one(name: str) -> None:
            together[name] = await ask(engine, ASKED[name])

        async with anyio.create_task_group() as tasks:
            for name in ASKED:
                tasks.start_soon(ask_one, name)
        for name, turn in turns.items():
            assert_same(together[name], first[name])
            cached = await ask(engine, replace(turn, pictures=unseen(turn)))
            assert_same(cached, cold[name])
            assert cached[0] >= len(ASKED[name].prompt_tokens)
    async with ready(folder, tmp_path, has_speculation=False) as engine:
        for name, turn in last.items():
            restored = await ask(engine, replace(turn, pictures=unseen(turn)))
            assert_same(restored, coldest[name])
            assert restored[0] >= len(turns[name].prompt_tokens)


def continued(generation: Generation, answer: Sequence[int]) -> Generation:
    tokens = (*generation.prompt_tokens, *answer, 7, 8, 9, 10)
    return replace(generation, prompt_tokens=tokens)


def unseen(generation: Generation) -> tuple[PromptPicture, ...]:
    """Return its pictures with pixels that must not be asked for: the prefix has them."""

    async def pixels() -> bytes:
        raise AssertionError("a picture was asked for again")

    return tuple(replace(one, pixels=pixels) for one in generation.pictures)


async def test_pictures_of_one_size_share_no_keys_and_values(folder: Path) -> None:
    tokens = list(prompt_tokens((0,)))
    other = prompt_pictures((0,))[0]

    async def inverted() -> bytes:
        assert other.pixels is not None
        return bytes(255 - value for value in await other.pixels())

    changed = replace(other, id="inverted", pixels=inverted)
    for place, at in enumerate(changed.tokens):
        tokens[at] = picture_token("inverted", place)
    generation = replace(asked((0,)), prompt_tokens=(*tokens, *TAIL), pictures=(changed,))
    async with ready(folder) as engine:
        first = await ask(engine, asked((0,)))
        second = await ask(engine, generation)
        alone = await ask(engine, replace(generation, prompt_tokens=(*tokens, *TAIL, 9)))
        assert second[0] < changed.start + 1
        assert first[2] != pytest.approx(second[2], abs=TOLERANCE)
        assert alone[0] > len(tokens)


@pytest.mark.parametrize("bits", [8, 4])
async def test_quantized_caches_hold_pictures(folder: Path, bits: Any) -> None:
    limits = ResourceLimits(kv_bits=bits)
    async with ready(folder, limits=limits, has_speculation=False) as engine:
        alone = await ask(engine, ASKED["two"])
        again = await ask(engine, ASKED["two"])
    assert again[0] > 0
    assert_same(again, alone)


async def test_drafts_leave_answers_with_pictures_as_they_are(folder: Path) -> None:
    plain, hinted = asked((1, 2), TAIL, 40), ASKED["one"]
    async with ready(folder, has_speculation=False) as engine:
        expected = await ask(engine, plain)
        other = await ask(engine, hinted)
    hint = (*TAIL[-20:], *expected[1], *prompt_tokens((0,)))
    async with ready(folder) as engine:
        assert_same(await ask(engine, replace(plain, hints=(hint,))), expected)
        assert_same(await ask(engine, hinted), other)


async def test_a_picture_that_cannot_be_had_fails_its_request_alone(folder: Path) -> None:
    async def busy() -> bytes:
        raise EngineBusyError("no process")

    async def short() -> bytes:
        return b"123"

    async with ready(folder) as engine:
        for source, error in ((busy, EngineBusyError), (short, EngineError)):
            tail = TAIL[len(error.__name__) :]
            generation = asked((0,), tail)
            pictures = tuple(replace(one, pixels=source, id=one.id) for one in generation.pictures)
            with pytest.raises(error):
                await ask(engine, replace(generation, pictures=pictures))
        assert (await ask(engine, ASKED["one"]))[1]
        assert engine.health.restarts == 0


async def test_an_engine_that_is_not_to_see_refuses_pictures(folder: Path) -> None:
    async with ready(folder, has_pictures=False) as engine:
        with pytest.raises(EngineError, match="does not see pictures"):
            await ask(engine, ASKED["one"])
        assert (await ask(engine, ASKED["none"]))[1]


async def test_an_engine_without_the_memory_for_pictures_reads_text(folder: Path) -> None:
    little = ResourceLimits(memory_limit_bytes=1_700_000_000)
    async with ready(folder, limits=little) as engine:
        assert not engine.health.sees
        assert (engine.health.context_tokens or 0) > 1000
        with pytest.raises(EngineError, match="does not see pictures"):
            await ask(engine, ASKED["one"])
        assert (await ask(engine, ASKED["none"]))[1]
    async with ready(folder) as engine:
        assert engine.health.sees


async def test_a_request_that_is_cancelled_while_it_waits_for_a_picture_leaves_no_trace(
    folder: Path,
) -> None:
    asked_for = anyio.Event()

    async def never() -> bytes:
        asked_for.set()
        await anyio.sleep_forever()
        return b""

    generation = asked((0,))
    waiting = replace(
        generation, pictures=tuple(replace(one, pixels=never) for one in generation.pictures)
    )
    async with ready(folder) as engine:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, engine, waiting)
            await asked_for.wait()
            tasks.cancel_scope.cancel()
        assert (await ask(engine, ASKED["none"]))[1]
        assert (await ask(engine, generation))[1]
