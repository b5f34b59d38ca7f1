"""The machine stays awake from the first generation until a moment after the last."""

import sys

import anyio
import pytest

from pensieve.engine.generation import Generation
from pensieve.server.awake_engine import AwakeEngine
from pensieve.sleep_blocker import SleepBlocker
from tests.support.fakes import ScriptedEngine, says
from tests.test_sleep_blocker import STAND_IN, OwnStandIns

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
GENERATION = Generation((1,), 9)


@pytest.fixture
def own_stand_ins() -> OwnStandIns:
    return OwnStandIns()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def released(own_stand_ins: OwnStandIns) -> None:
    with anyio.fail_after(30):
        while own_stand_ins():
            await anyio.lowlevel.checkpoint()


async def test_machine_stays_awake_until_the_last_generation_ends(
    own_stand_ins: OwnStandIns,
) -> None:
    with SleepBlocker(STAND_IN) as blocker:
        engine = AwakeEngine(ScriptedEngine([says("x")]), blocker, linger_s=0)
        assert own_stand_ins() == set()
        async with engine.generate(GENERATION):
            async with engine.generate(GENERATION):
                pass
            await anyio.sleep(0)
            assert len(own_stand_ins()) == 1
        await released(own_stand_ins)


async def test_blocker_persists_between_two_generations(own_stand_ins: OwnStandIns) -> None:
    with SleepBlocker(STAND_IN) as blocker:
        engine = AwakeEngine(ScriptedEngine([says("x")]), blocker, linger_s=60)
        async with engine.generate(GENERATION):
            stand_ins = own_stand_ins()
        assert own_stand_ins() == stand_ins
        async with engine.generate(GENERATION):
            assert own_stand_ins() == stand_ins
    assert own_stand_ins() == set()


async def test_refused_generation_releases_the_blocker(own_stand_ins: OwnStandIns) -> None:
    with SleepBlocker(STAND_IN) as blocker:
        engine = AwakeEngine(ScriptedEngine([[]], refusal=KeyError()), blocker, linger_s=0)
        with pytest.raises(KeyError):
            async with engine.generate(GENERATION):
                pytest.fail("it was taken")
        await released(own_stand_ins)
