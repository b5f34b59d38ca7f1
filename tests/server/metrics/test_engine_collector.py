"""Metrics of the engine: from its health, and from real worker processes that have no model."""

import os
import signal
from pathlib import Path
from typing import get_args

import anyio
import pytest
from prometheus_client import CollectorRegistry

from pensieve.engine.client.client import IdlePolicy, running_engine
from pensieve.engine.client.launch import WorkerSpec
from pensieve.engine.generation import (
    DraftCounts,
    Engine,
    EngineHealth,
    EngineStats,
    Generation,
    RestartCause,
    SourceCounts,
    WorkTotals,
)
from pensieve.server.metrics.engine_collector import EngineCollector
from tests.engine.client.test_client import open_scripted, ready, token_ids
from tests.engine.states import in_state, until
from tests.server.metrics.scraping import Samples, samples_of
from tests.support.fakes import ScriptedEngine

pytestmark = pytest.mark.anyio

STATS = EngineStats(
    *(8, "why", 2, 3, 5, 7, 11, 13, 17, 19, 23),
    is_writing_paused=True,
    worker_bytes=29,
    queued=31,
    running=37,
)
DRAFTS = DraftCounts(SourceCounts(3, 2), shadow=SourceCounts(31, 30), mtp=SourceCounts(9, 7))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def samples(engine: Engine) -> Samples:
    registry = CollectorRegistry()
    registry.register(EngineCollector(engine))
    return samples_of(registry.collect())


def of_health(health: EngineHealth) -> Samples:
    return samples(ScriptedEngine([[]], health=health))


def test_each_figure_of_a_loaded_worker_has_its_own_metric() -> None:
    found = of_health(EngineHealth("ready", in_flight=41, stats=STATS))
    assert {name: value for (name, *labels), value in found.items() if value and not labels} == {
        "pensieve_requests_open": 41,
        "pensieve_requests_queued": 31,
        "pensieve_requests_running": 37,
        "pensieve_worker_memory_bytes": 29,
        "pensieve_memory_limit_bytes": 2,
        "pensieve_weights_bytes": 3,
        "pensieve_kv_cache_limit_bytes": 5,
        "pensieve_kv_cache_used_bytes": 7,
        "pensieve_prefix_memory_bytes": 11,
        "pensieve_prefix_disk_bytes": 13,
        "pensieve_prefix_disk_limit_bytes": 17,
        "pensieve_disk_written_today_bytes": 19,
        "pensieve_disk_write_quota_bytes": 23,
        "pensieve_disk_writing_paused": 1,
    }


def test_what_only_a_loaded_worker_knows_is_left_out_without_one() -> None:
    found = of_health(EngineHealth("asleep", in_flight=1))
    assert found["pensieve_requests_open",] == 1
    assert found["pensieve_engine_state", "asleep"] == 1
    assert found["pensieve_engine_state", "ready"] == 0
    assert ("pensieve_requests_queued",) not in found
    assert ("pensieve_worker_memory_bytes",) not in found


def test_counters_are_the_totals_of_all_workers_also_without_one() -> None:
    health = EngineHealth(
        "loading",
        restarts_by_cause={"decode": 2, "hung": 1},
        sleeps=5,
        wakes=4,
        totals=WorkTotals(7, 1.5, DRAFTS),
    )
    found = of_health(health)
    restarts = {labels[0]: value for (name, *labels), value in found.items() if "restarts" in name}
    assert restarts == dict.fromkeys(get_args(RestartCause), 0) | {"decode": 2, "hung": 1}
    assert found["pensieve_worker_sleeps_total",] == 5
    assert found["pensieve_worker_wakes_total",] == 4
    assert found["pensieve_preemptions_total",] == 7
    assert found["pensieve_grammar_compile_seconds_total",] == 1.5
    drafted = {source: found["pensieve_draft_tokens_total", source] for source in DRAFTS.by_source}
    assert drafted == {"grammar": 3, "lookup": 0, "shadow": 31, "mtp": 9}
    right = {
        source: found["pensieve_accepted_draft_tokens_total", source] for source in DRAFTS.by_source
    }
    assert right == {"grammar": 2, "lookup": 0, "shadow": 30, "mtp": 7}


async def test_counters_go_on_from_worker_to_worker_and_never_back() -> None:
    """Real ones: the first is killed, the second is unloaded while idle, the third wakes."""
    spec, idle = WorkerSpec(Path("model"), "cpu"), IdlePolicy(unload_s=0.5, timeout_s=1.0)
    async with running_engine(spec, open_worker=open_scripted, idle=idle) as engine:
        await ready(engine)
        await preempt_some(engine)
        seen = [samples(engine)]
        os.kill(engine.health.worker_pid or 0, signal.SIGKILL)
        await until(lambda: engine.health.restarts == 1)
        seen.append(samples(engine))
        await in_state(engine, "asleep")
        seen.append(samples(engine))
        await preempt_some(engine)
        seen.append(samples(engine))
        reported = (engine.health.stats or STATS).preempted
    assert [found["pensieve_worker_restarts_total", "idle"] for found in seen] == [0, 1, 1, 1]
    assert [found["pensieve_worker_sleeps_total",] for found in seen] == [0, 0, 1, 1]
    assert [found["pensieve_worker_wakes_total",] for found in seen] == [0, 0, 0, 1]
    preempted = [found["pensieve_preemptions_total",] for found in seen]
    assert 0 < preempted[0] <= preempted[1] == preempted[2]
    assert preempted[3] == preempted[2] + reported > preempted[2]


async def preempt_some(engine: Engine) -> None:
    """Have conversations take the turn of a batch's long prompts until that is in the stats."""
    number = 0
    with anyio.fail_after(60):
        while not (engine.health.stats or STATS).preempted:
            number += 1
            batch = Generation((number,) * 50_000, 1, priority="batch")
            async with engine.generate(batch):
                await token_ids(engine, (number,) * 10)
