"""The end of an engine: its worker writes what is not on disk yet, or is killed after a while."""

import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process

from pensieve.engine.client.client import running_engine
from pensieve.engine.client.launch import WorkerSpec, open_worker
from pensieve.engine.client.supervisor import STOP_TIMEOUT_S
from pensieve.engine.generation import Engine, Generation, Started, Token
from pensieve.server.http.shutdown_grace import MARGIN_S
from tests.engine.client.test_client import SCRIPTED_WORKER, ready
from tests.engine.scripted_worker import HANGING

pytestmark = pytest.mark.anyio
KILLED = -signal.SIGKILL
FOR_EVER_S = 600.0
SOON_S = 0.1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Opener:
    script: str = "model"
    processes: list[Process] = field(default_factory=list)

    async def __call__(self, spec: WorkerSpec) -> tuple[Process, socket.socket]:
        process, connection = await open_worker(spec, (*SCRIPTED_WORKER, self.script))
        self.processes.append(process)
        return process, connection

    @property
    def exit_codes(self) -> list[int | None]:
        return [process.returncode for process in self.processes]


@asynccontextmanager
async def engine_of(opener: Opener, stop_timeout_s: float) -> AsyncGenerator[Engine]:
    spec = WorkerSpec(Path("model"), "cpu")
    with anyio.fail_after(60):
        async with running_engine(
            spec, open_worker=opener, stop_timeout_s=stop_timeout_s
        ) as engine:
            yield engine


async def test_loaded_worker_ends_by_itself_as_soon_as_all_is_written() -> None:
    opener = Opener()
    async with engine_of(opener, FOR_EVER_S) as engine:
        await ready(engine)
        async with engine.generate(Generation((1, 2), 10**6)) as events:
            await anext(event async for event in events if isinstance(event, Token))
    assert opener.exit_codes == [0]


async def test_worker_that_still_loads_is_killed_at_once() -> None:
    opener = Opener("never-loads")
    async with engine_of(opener, FOR_EVER_S):
        with anyio.fail_after(30):
            while not opener.processes:
                await anyio.lowlevel.checkpoint()
    assert opener.exit_codes == [KILLED]


@pytest.mark.parametrize("script", ["stubborn", "model"])
async def test_worker_that_does_not_end_is_killed(
    script: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A stopped process (SIGSTOP) and one that hangs get the signal, too."""
    caplog.set_level("INFO")
    opener = Opener(script)
    async with engine_of(opener, SOON_S) as engine:
        await ready(engine)
        if script == "model":
            os.kill(opener.processes[0].pid, signal.SIGSTOP)
    assert opener.exit_codes == [KILLED]
    assert "did not exit within 0.1 s of the stop, killing it" in caplog.text


async def test_worker_that_hangs_in_a_prompt_is_killed() -> None:
    opener = Opener()
    async with engine_of(opener, SOON_S) as engine, anyio.create_task_group() as tasks:
        await ready(engine)
        is_started = anyio.Event()

        async def ask() -> None:
            async with engine.generate(Generation((HANGING,) * 5, 2)) as events:
                # The worker sends it just before the step that hangs.
                assert await anext(events) == Started(0)
                is_started.set()
                await anext(events)

        tasks.start_soon(ask)
        await is_started.wait()
        tasks.cancel_scope.cancel()
    assert opener.exit_codes == [KILLED]


def test_stop_fits_between_open_answers_and_the_kill_of_launchd() -> None:
    assert STOP_TIMEOUT_S < MARGIN_S
