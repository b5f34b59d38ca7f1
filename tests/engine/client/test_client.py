"""The front end's side of the engine against real worker processes without a model."""

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import pytest

from pensieve.engine.client.client import running_engine
from pensieve.engine.client.launch import WorkerSpec, open_worker
from pensieve.engine.client.supervisor import HealthCheckPolicy
from pensieve.engine.generation import (
    Engine,
    EngineEvent,
    EngineStats,
    Finished,
    Generation,
    Grammar,
    Started,
    Token,
)
from pensieve.errors import (
    EngineBusyError,
    EngineError,
    EngineFailedError,
    GrammarError,
    LethalRequestError,
    PensieveError,
    WorkerDiedError,
)
from tests.engine.counting_backend import REFUSED_TOKEN
from tests.engine.scripted_worker import KILLER, SLOW, STUCK, WEDGER
from tests.engine.states import in_state, until

pytestmark = pytest.mark.anyio
NO_END = 10**9
# On a machine with much else to do a worker may not get to say anything for a while.
PATIENT = HealthCheckPolicy()
WATCHFUL = HealthCheckPolicy(interval_s=0.1, max_missed=5)
IDLE = EngineStats(8, "by script", 1, 2, 3)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


SCRIPTED_WORKER = ("-m", "tests.engine.scripted_worker")
open_scripted = partial(open_worker, program=SCRIPTED_WORKER)


@asynccontextmanager
async def scripted_engine(
    folder: str = "model", watch: HealthCheckPolicy = PATIENT, planned_tokens: int | None = None
) -> AsyncGenerator[Engine]:
    spec = WorkerSpec(Path(folder), "cpu", planned_tokens=planned_tokens)
    async with running_engine(spec, open_worker=open_scripted, watch=watch) as engine:
        yield engine


async def ready(engine: Engine) -> None:
    await in_state(engine, "ready")


async def token_ids(engine: Engine, prompt: tuple[int, ...], max_tokens: int = 3) -> list[int]:
    async with engine.generate(Generation(prompt, max_tokens)) as events:
        return [event.token_id async for event in events if isinstance(event, Token)]


# R9 in full: PENSIEVE_KILLS=102 pytest tests/engine/client/test_client.py -k killed
KILLS = int(os.environ.get("PENSIEVE_KILLS", "3"))


async def test_events_come_in_order_and_end() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        async with engine.generate(Generation((1, 2), 2)) as events:
            seen = [event async for event in events]
        assert seen[0] == Started(cached_tokens=0)
        assert seen[-3:] == [Token(2), Token(3), Finished("length", 2)]


async def test_generations_run_side_by_side_each_with_its_own_tokens() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        results: dict[int, list[int]] = {}

        async def one(length: int) -> None:
            results[length] = await token_ids(engine, (1,) * length)

        async with anyio.create_task_group() as tasks:
            for length in (1, 2, 3, 4):
                tasks.start_soon(one, length)
        assert results == {n: [n, n + 1, n + 2] for n in (1, 2, 3, 4)}


async def test_entering_returns_at_once_and_says_that_the_model_loads() -> None:
    async with scripted_engine() as engine:
        assert engine.health.state == "loading"
        with pytest.raises(EngineBusyError, match="loading"):
            await token_ids(engine, (1,))


async def test_the_context_is_as_planned_until_the_worker_says_and_then_as_it_said() -> None:
    async with scripted_engine(planned_tokens=77) as engine:
        assert engine.health.context_tokens == 77
        await ready(engine)
        said = engine.health.context_tokens
        assert said not in {None, 77}
        os.kill(worker_of(engine), signal.SIGKILL)
        await in_state(engine, "loading")
        assert engine.health.context_tokens == said


async def test_leaving_the_block_frees_the_slot() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        for _ in range(5):  # the worker has two places; five endless generations would fill them
            async with engine.generate(Generation((1,), NO_END)) as events:
                async for event in events:
                    if isinstance(event, Token):
                        break
        assert engine.health.in_flight == 0
        assert await token_ids(engine, (1, 2)) == [2, 3, 4]


async def test_a_cancelled_task_frees_the_slot() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        for _ in range(5):
            with anyio.move_on_after(0.05):
                await token_ids(engine, (1,), NO_END)
        assert await token_ids(engine, (1, 2)) == [2, 3, 4]


async def test_what_the_worker_has_no_room_for_is_answered_busy() -> None:
    async with scripted_engine() as engine, anyio.create_task_group() as tasks:
        await ready(engine)
        for _ in range(2):
            await tasks.start(endless, engine)
        async with (
            engine.generate(Generation((1,), NO_END)),
            engine.generate(Generation((1,), NO_END)),
        ):
            with pytest.raises(EngineBusyError, match="too many"):
                await token_ids(engine, (1,))
        tasks.cancel_scope.cancel()


async def endless(engine: Engine, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    async with engine.generate(Generation((1,), NO_END)) as events:
        async for event in events:
            if isinstance(event, Token):
                break
        task_status.started()
        await anyio.sleep_forever()


async def test_a_request_that_fails_does_not_hurt_its_neighbour() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        with pytest.raises(EngineError, match="refused"):
            await token_ids(engine, (REFUSED_TOKEN,))
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_a_worker_that_dies_fails_its_generations_and_is_replaced() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        first_pid = engine.health.worker_pid
        with pytest.raises(WorkerDiedError):
            await token_ids(engine, (KILLER,), 50)
        await ready(engine)
        assert engine.health.restarts == 1
        assert engine.health.worker_pid != first_pid
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def died_on(engine: Engine, prompt: tuple[int, ...]) -> PensieveError:
    """How a request ends of which the worker dies; the next worker is ready."""
    with pytest.raises(PensieveError) as caught:
        await token_ids(engine, prompt, 50)
    await ready(engine)
    return caught.value


async def test_a_prompt_that_kills_twice_before_any_of_it_is_processed_is_refused() -> None:
    lethal = (KILLER,) * 5
    async with scripted_engine() as engine:
        await ready(engine)
        assert isinstance(await died_on(engine, lethal), WorkerDiedError)
        assert engine.health.poison_prompts == 0
        told = "The engine ended 2 times while it began with this prompt."
        assert told in (await died_on(engine, lethal)).message
        with pytest.raises(LethalRequestError, match=told):
            await token_ids(engine, lethal)
        assert (engine.health.restarts, engine.health.poison_prompts) == (2, 1)
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_a_prompt_that_kills_twice_while_it_is_answered_is_an_error_of_the_engine() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        assert isinstance(await died_on(engine, (KILLER,)), WorkerDiedError)
        assert isinstance(await died_on(engine, (KILLER,)), LethalRequestError)
        with pytest.raises(LethalRequestError):
            await token_ids(engine, (KILLER,))
        assert engine.health.restarts == 2


async def test_of_those_that_shared_a_death_only_the_one_that_kills_alone_is_refused() -> None:
    lethal, bystander = (KILLER,) * 5, (1, 2)
    outcomes: dict[tuple[int, ...], list[type[Exception] | list[int]]] = {lethal: [], bystander: []}

    async def ask(engine: Engine, prompt: tuple[int, ...]) -> None:
        try:
            outcomes[prompt].append(await token_ids(engine, prompt, 5000))
        except PensieveError as error:
            outcomes[prompt].append(type(error))

    async with scripted_engine() as engine:
        for _ in range(2):
            await ready(engine)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, engine, bystander)
                tasks.start_soon(ask, engine, lethal)
        await ready(engine)
        await ask(engine, bystander)
        await ask(engine, lethal)
        assert engine.health.poison_prompts == 1
    assert outcomes[lethal] == [WorkerDiedError, LethalRequestError, LethalRequestError]
    assert outcomes[bystander][0] == WorkerDiedError
    assert outcomes[bystander][-1] == list(range(2, 5002))


async def test_a_worker_that_hangs_is_noticed_and_replaced() -> None:
    async with scripted_engine(watch=WATCHFUL) as engine:
        await ready(engine)
        with anyio.fail_after(30), pytest.raises(WorkerDiedError):
            await token_ids(engine, (WEDGER,), 50)
        await ready(engine)
        assert engine.health.restarts == 1
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_a_worker_is_left_alone_for_as_long_as_it_announced() -> None:
    async with scripted_engine(watch=WATCHFUL) as engine:
        await ready(engine)
        assert await token_ids(engine, (SLOW,), 6) == [1, 2, 3, 4, 5, 6]
        assert engine.health.restarts == 0


async def test_a_worker_that_takes_longer_than_it_announced_is_ended_and_the_work_is_named() -> (
    None
):
    async with scripted_engine(watch=WATCHFUL) as engine:
        await ready(engine)
        with anyio.fail_after(30), pytest.raises(WorkerDiedError):
            await token_ids(engine, (STUCK,), 50)
        await until(lambda: engine.health.restarts == 1)
        assert "hung: nothing came for 1 s while processing for ever" in engine.health.detail
        await ready(engine)
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_a_worker_that_hangs_while_it_loads_is_ended_and_counted_as_dead() -> None:
    async with scripted_engine("hangs-in-loading", WATCHFUL) as engine:
        await until(lambda: engine.health.restarts == 1)
        assert "hung" in engine.health.detail
        assert "while reading the weights (3.2 of 16.1 GB)" in engine.health.detail


async def test_a_worker_that_loads_slowly_is_left_alone_and_shows_how_far_it_is() -> None:
    async with scripted_engine("loads-slowly", WATCHFUL) as engine:
        details: set[str] = set()
        with anyio.fail_after(30):
            while engine.health.state == "loading":
                details.add(engine.health.detail)
                await anyio.lowlevel.checkpoint()
        assert engine.health.restarts == 0
        assert details >= {f"Reading the weights ({part} of 6)." for part in range(6)}
        assert await token_ids(engine, (1,)) == [1, 2, 3]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT])
async def test_a_worker_that_is_killed_at_any_moment_is_replaced(how: signal.Signals) -> None:
    # Three of one engine's: a few more within a minute are a crash loop.
    for _ in range(KILLS // 3):
        async with scripted_engine() as engine:
            await ready(engine)
            os.kill(worker_of(engine), how)
            await in_state(engine, "loading")
            for length, moment in enumerate((Started, Token), start=1):
                await ready(engine)
                with pytest.raises(WorkerDiedError):
                    await killed_amid_an_answer(engine, how, moment, length)
            await ready(engine)
            assert engine.health.restarts == 3
            assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_a_worker_that_was_put_to_sleep_goes_on_where_it_was() -> None:
    naps = 0
    async with scripted_engine() as engine:
        await ready(engine)
        async with engine.generate(Generation((1,), NO_END)) as events:
            async for event in events:
                os.kill(worker_of(engine), signal.SIGSTOP)
                os.kill(worker_of(engine), signal.SIGCONT)
                naps += isinstance(event, Token)
                if naps == 20:
                    break
        assert engine.health.restarts == 0
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def killed_amid_an_answer(
    engine: Engine, how: signal.Signals, moment: type[EngineEvent], length: int
) -> None:
    """Once, at the first event of this kind; those that were on their way still come.

    length: of a prompt that no other has, so that none of them is taken for poison.
    """
    victim: int | None = worker_of(engine)
    async with engine.generate(Generation((1,) * length, NO_END)) as events:
        async for event in events:
            if victim is not None and isinstance(event, moment):
                os.kill(victim, how)
                victim = None


def worker_of(engine: Engine) -> int:
    pid = engine.health.worker_pid
    assert pid is not None
    return pid


async def test_a_worker_that_nobody_waits_for_may_be_silent() -> None:
    async with scripted_engine(watch=WATCHFUL) as engine, scripted_engine(watch=WATCHFUL) as other:
        await ready(engine)
        await ready(other)
        with anyio.fail_after(30), pytest.raises(WorkerDiedError):
            await token_ids(other, (WEDGER,), 50)
        assert engine.health.restarts == 0
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_a_model_that_does_not_load_is_said_and_not_tried_again() -> None:
    async with scripted_engine("no-model") as engine:
        await in_state(engine, "failed")
        assert "no weights here" in engine.health.detail
        with pytest.raises(EngineFailedError, match="no weights here"):
            await token_ids(engine, (1,))


async def test_the_error_of_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with scripted_engine():
            raise KeyError


def with_grammar(lark: str) -> Generation:
    return Generation((1, 2), 3, frozenset({0}), grammar=Grammar(lark))


async def test_a_grammar_that_does_not_compile_is_said_on_entering() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        with pytest.raises(GrammarError, match="nothing matches"):
            async with engine.generate(with_grammar("bad")):
                pytest.fail("it was taken")
        async with engine.generate(with_grammar("good")) as events:
            assert [event async for event in events][-1] == Finished("length", 3)


async def test_others_go_on_while_a_grammar_is_compiled() -> None:
    async with scripted_engine() as engine, anyio.create_task_group() as tasks:
        await ready(engine)
        finished: list[str] = []

        async def run(lark: str) -> None:
            async with engine.generate(with_grammar(lark)) as events:
                assert [event async for event in events][-1] == Finished("length", 3)
            finished.append(lark)

        tasks.start_soon(run, "slow")
        await anyio.wait_all_tasks_blocked()
        assert engine.health.in_flight == 1
        assert await token_ids(engine, (5, 5)) == [2, 3, 4]
        assert finished == []
        await run("release")
    assert sorted(finished) == ["release", "slow"]


async def test_nobody_has_to_wait_for_a_grammar_that_takes_long() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        with anyio.move_on_after(0.05) as patience:
            async with engine.generate(with_grammar("slow")):
                pytest.fail("it was taken")
        assert patience.cancelled_caught
        assert engine.health.in_flight == 0
        assert await token_ids(engine, (5, 5)) == [2, 3, 4]


async def test_figures_are_there_when_it_is_ready_and_follow_what_it_does() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        assert engine.health.figures == IDLE
        async with engine.generate(Generation((1,), NO_END)) as events:
            with anyio.fail_after(30):
                async for _ in events:
                    if (engine.health.figures or IDLE).kv_used_bytes:
                        break
        with anyio.fail_after(30):
            while (engine.health.figures or IDLE).kv_used_bytes:
                await token_ids(engine, (1,))
        assert (engine.health.figures or IDLE).tokens_per_second > 0


async def test_a_worker_that_died_has_no_figures() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        with pytest.raises(WorkerDiedError):
            await token_ids(engine, (KILLER,), 50)
        assert engine.health.figures is None


async def test_what_lies_in_the_folder_one_stands_in_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker itself, which says that there is no model, where it would have died of that file."""
    (tmp_path / "json.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    async with running_engine(WorkerSpec(tmp_path / "none", "cpu")) as engine:
        await in_state(engine, "failed")
        assert "does not load" in engine.health.detail
