"""The engine client with real worker processes that have no model."""

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
    SpeculationState,
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
from tests.engine.scripted_worker import HANGING, KILLER, SLOW, SPECULATION, STUCK
from tests.engine.states import in_state, until

pytestmark = pytest.mark.anyio
NO_END = 10**9
# On a busy machine a worker may not get to run for a while.
ORDINARY = HealthCheckPolicy()
STRICT = HealthCheckPolicy(interval_s=0.1, max_missed=5)
IDLE = EngineStats(8, "by script", 1, 2, 3)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


SCRIPTED_WORKER = ("-m", "tests.engine.scripted_worker")
open_scripted = partial(open_worker, program=SCRIPTED_WORKER)


@asynccontextmanager
async def scripted_engine(
    folder: str = "model",
    health_checks: HealthCheckPolicy = ORDINARY,
    planned_tokens: int | None = None,
) -> AsyncGenerator[Engine]:
    spec = WorkerSpec(Path(folder), "cpu", planned_tokens=planned_tokens)
    async with running_engine(
        spec, open_worker=open_scripted, health_checks=health_checks
    ) as engine:
        yield engine


async def ready(engine: Engine) -> None:
    await in_state(engine, "ready")


async def token_ids(engine: Engine, prompt: tuple[int, ...], max_tokens: int = 3) -> list[int]:
    async with engine.generate(Generation(prompt, max_tokens)) as events:
        return [event.token_id async for event in events if isinstance(event, Token)]


# The full run: PENSIEVE_KILLS=102 pytest tests/engine/client/test_client.py -k killed
KILLS = int(os.environ.get("PENSIEVE_KILLS", "3"))


async def test_events_arrive_in_order_and_end_with_finished() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        async with engine.generate(Generation((1, 2), 2)) as events:
            seen = [event async for event in events]
        assert seen[0] == Started(cached_tokens=0)
        assert seen[-3:] == [Token(2), Token(3), Finished("length", 2)]


async def test_concurrent_requests_get_their_own_tokens() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        results: dict[int, list[int]] = {}

        async def one(length: int) -> None:
            results[length] = await token_ids(engine, (1,) * length)

        async with anyio.create_task_group() as tasks:
            for length in (1, 2, 3, 4):
                tasks.start_soon(one, length)
        assert results == {n: [n, n + 1, n + 2] for n in (1, 2, 3, 4)}


async def test_request_while_the_model_loads_is_refused_as_busy() -> None:
    async with scripted_engine() as engine:
        assert engine.health.state == "loading"
        with pytest.raises(EngineBusyError, match="loading"):
            await token_ids(engine, (1,))


async def test_context_is_the_planned_one_until_the_worker_reports_it() -> None:
    async with scripted_engine(planned_tokens=77) as engine:
        assert engine.health.context_tokens == 77
        await ready(engine)
        reported = engine.health.context_tokens
        assert reported not in {None, 77}
        os.kill(worker_of(engine), signal.SIGKILL)
        await in_state(engine, "loading")
        assert engine.health.context_tokens == reported


async def test_hints_are_taken_until_the_worker_reports_that_speculation_is_off() -> None:
    async with scripted_engine() as engine:
        assert (engine.health.speculation, engine.health.takes_hints) == (None, True)
        await ready(engine)
        assert engine.health.speculation == SPECULATION
        assert not engine.health.takes_hints
        os.kill(worker_of(engine), signal.SIGKILL)
        await in_state(engine, "loading")
        assert not engine.health.takes_hints


async def test_no_hints_are_taken_where_the_setting_is_off() -> None:
    spec = WorkerSpec(Path("model"), "cpu", has_speculation=False)
    async with running_engine(spec, open_worker=open_scripted) as engine:
        assert engine.health.speculation == SpeculationState("setting")
        assert not engine.health.takes_hints


async def test_leaving_the_block_frees_the_slot() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        for _ in range(5):  # the worker has two slots and queues two
            async with engine.generate(Generation((1,), NO_END)) as events:
                async for event in events:
                    if isinstance(event, Token):
                        break
        assert engine.health.in_flight == 0
        assert await token_ids(engine, (1, 2)) == [2, 3, 4]


async def test_cancelled_task_frees_the_slot() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        for _ in range(5):
            with anyio.move_on_after(0.05):
                await token_ids(engine, (1,), NO_END)
        assert await token_ids(engine, (1, 2)) == [2, 3, 4]


async def test_request_beyond_the_queue_is_refused_as_busy() -> None:
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


async def test_failed_request_leaves_the_worker_usable() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        with pytest.raises(EngineError, match="refused"):
            await token_ids(engine, (REFUSED_TOKEN,))
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_dead_worker_fails_its_requests_and_is_replaced() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        first_pid = engine.health.worker_pid
        with pytest.raises(WorkerDiedError):
            await token_ids(engine, (KILLER,), 50)
        await ready(engine)
        assert engine.health.restarts_by_cause == {"decode": 1}
        assert engine.health.restarts == 1
        assert engine.health.worker_pid != first_pid
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def died_on(engine: Engine, prompt: tuple[int, ...]) -> PensieveError:
    """Send a prompt that kills the worker; return its error once the next worker is ready."""
    with pytest.raises(PensieveError) as caught:
        await token_ids(engine, prompt, 50)
    await ready(engine)
    return caught.value


async def test_prompt_that_kills_twice_at_its_start_is_refused() -> None:
    lethal = (KILLER,) * 5
    async with scripted_engine() as engine:
        await ready(engine)
        assert isinstance(await died_on(engine, lethal), WorkerDiedError)
        assert engine.health.poison_prompts == 0
        message = "The engine ended 2 times while it began with this prompt."
        assert message in (await died_on(engine, lethal)).message
        with pytest.raises(LethalRequestError, match=message):
            await token_ids(engine, lethal)
        assert (engine.health.restarts, engine.health.poison_prompts) == (2, 1)
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_prompt_that_kills_twice_in_decode_is_an_engine_error() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        assert isinstance(await died_on(engine, (KILLER,)), WorkerDiedError)
        assert isinstance(await died_on(engine, (KILLER,)), LethalRequestError)
        with pytest.raises(LethalRequestError):
            await token_ids(engine, (KILLER,))
        assert engine.health.restarts == 2


async def test_of_prompts_that_shared_a_death_only_the_lethal_one_is_refused() -> None:
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


async def test_hung_worker_is_replaced() -> None:
    async with scripted_engine(health_checks=STRICT) as engine:
        await ready(engine)
        with anyio.fail_after(30), pytest.raises(WorkerDiedError):
            await token_ids(engine, (HANGING,), 50)
        await ready(engine)
        assert engine.health.restarts_by_cause == {"hung": 1}
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_worker_within_its_announced_timeout_is_not_restarted() -> None:
    async with scripted_engine(health_checks=STRICT) as engine:
        await ready(engine)
        assert await token_ids(engine, (SLOW,), 6) == [1, 2, 3, 4, 5, 6]
        assert engine.health.restarts == 0


async def test_worker_beyond_its_announced_timeout_is_replaced_and_its_work_named() -> None:
    async with scripted_engine(health_checks=STRICT) as engine:
        await ready(engine)
        with anyio.fail_after(30), pytest.raises(WorkerDiedError):
            await token_ids(engine, (STUCK,), 50)
        await until(lambda: engine.health.restarts == 1)
        assert "hung: nothing came for 1 s while processing for ever" in engine.health.detail
        await ready(engine)
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_worker_that_hangs_in_loading_is_restarted() -> None:
    async with scripted_engine("hangs-in-loading", STRICT) as engine:
        await until(lambda: engine.health.restarts == 1)
        assert "hung" in engine.health.detail
        assert "while reading the weights (3.2 of 16.1 GB)" in engine.health.detail


async def test_slowly_loading_worker_is_not_restarted_and_shows_its_progress() -> None:
    async with scripted_engine("loads-slowly", STRICT) as engine:
        details: set[str] = set()
        with anyio.fail_after(30):
            while engine.health.state == "loading":
                details.add(engine.health.detail)
                await anyio.lowlevel.checkpoint()
        assert engine.health.restarts == 0
        assert details >= {f"Reading the weights ({part} of 6)." for part in range(6)}
        assert await token_ids(engine, (1,)) == [1, 2, 3]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT])
async def test_worker_killed_at_any_moment_is_replaced(how: signal.Signals) -> None:
    # Three for each engine: a few more within a minute are a crash loop.
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


async def test_worker_that_dies_in_a_preload_is_replaced_by_one_that_does_not_preload() -> None:
    async with scripted_engine("dies-in-preload") as engine:
        await until(lambda: engine.health.restarts == 1)
        await ready(engine)
        assert await token_ids(engine, (1,)) == [1, 2, 3]
        assert engine.health.restarts_by_cause == {"idle": 1}


async def test_stopped_and_continued_worker_keeps_its_requests() -> None:
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
    """Kill the worker at the first event of this kind; events already sent still arrive.

    length: of the prompt; a different one for each kill, so that none is refused as lethal.
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


async def test_idle_worker_may_be_silent() -> None:
    async with (
        scripted_engine(health_checks=STRICT) as engine,
        scripted_engine(health_checks=STRICT) as other,
    ):
        await ready(engine)
        await ready(other)
        with anyio.fail_after(30), pytest.raises(WorkerDiedError):
            await token_ids(other, (HANGING,), 50)
        assert engine.health.restarts == 0
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_model_that_does_not_load_fails_the_engine_without_a_retry() -> None:
    async with scripted_engine("no-model") as engine:
        await in_state(engine, "failed")
        assert "no weights here" in engine.health.detail
        with pytest.raises(EngineFailedError, match="no weights here"):
            await token_ids(engine, (1,))


async def test_failed_engine_is_started_again_by_a_reload(tmp_path: Path) -> None:
    async with scripted_engine(f"{tmp_path}/appears") as engine:
        await in_state(engine, "failed")
        assert engine.health.is_model_at_fault
        (tmp_path / "appears").touch()
        engine.reload()
        assert not engine.health.is_model_at_fault
        await ready(engine)
        assert await token_ids(engine, (1,)) == [1, 2, 3]


async def test_error_raised_in_the_block_is_not_wrapped() -> None:
    with pytest.raises(KeyError):
        async with scripted_engine():
            raise KeyError


def with_grammar(lark: str) -> Generation:
    return Generation((1, 2), 3, frozenset({0}), grammar=Grammar(lark))


async def test_invalid_grammar_is_raised_on_entering() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        with pytest.raises(GrammarError, match="nothing matches"):
            async with engine.generate(with_grammar("bad")):
                pytest.fail("it was taken")
        async with engine.generate(with_grammar("good")) as events:
            assert [event async for event in events][-1] == Finished("length", 3)


async def test_other_requests_run_while_a_grammar_compiles() -> None:
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


async def test_request_with_a_slow_grammar_can_be_cancelled() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        with anyio.move_on_after(0.05) as scope:
            async with engine.generate(with_grammar("slow")):
                pytest.fail("it was taken")
        assert scope.cancelled_caught
        assert engine.health.in_flight == 0
        assert await token_ids(engine, (5, 5)) == [2, 3, 4]


async def test_stats_are_available_when_ready_and_follow_the_work() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        assert engine.health.stats == IDLE
        async with engine.generate(Generation((1,), NO_END)) as events:
            with anyio.fail_after(30):
                async for _ in events:
                    if (engine.health.stats or IDLE).kv_used_bytes:
                        break
        with anyio.fail_after(30):
            while (engine.health.stats or IDLE).kv_used_bytes:
                await token_ids(engine, (1,))
        assert (engine.health.stats or IDLE).tokens_per_second > 0


async def test_dead_worker_has_no_stats() -> None:
    async with scripted_engine() as engine:
        await ready(engine)
        with pytest.raises(WorkerDiedError):
            await token_ids(engine, (KILLER,), 50)
        assert engine.health.stats is None


async def test_module_in_the_working_directory_is_not_imported_by_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real worker reports that there is no model. It would have died of that file."""
    (tmp_path / "json.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    async with running_engine(WorkerSpec(tmp_path / "none", "cpu")) as engine:
        await in_state(engine, "failed")
        assert "does not load" in engine.health.detail
