"""Runs several engines as one: `workers = N`, or the same model on several machines."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from signal import SIGUSR1

import anyio
from anyio.abc import TaskStatus

from pensieve.engine.client.client import IdlePolicy, running_engine
from pensieve.engine.client.launch import ReplicaSpec
from pensieve.engine.client.router import Replica, Router
from pensieve.engine.client.sent_prompts import remembering

# Restarts the engines one after another.
RESTART_SIGNAL = SIGUSR1


@asynccontextmanager
async def running_replicas(
    specs: Sequence[ReplicaSpec], *, idle: IdlePolicy
) -> AsyncGenerator[Router]:
    """Run an engine for each spec while the block lasts; entering waits for no model.

    At its end all of them stop at once: each may take some seconds to write its prefixes.
    """
    try:
        async with anyio.create_task_group() as tasks:
            router = Router([await tasks.start(_run, each, idle) for each in specs])
            tasks.start_soon(_restart_at_signals, router)
            yield router
            tasks.cancel_scope.cancel()
    except ExceptionGroup as group:
        # Only one error can occur here: raise that instead of a group of one.
        raise group.exceptions[0] from None


async def _run(spec: ReplicaSpec, idle: IdlePolicy, *, task_status: TaskStatus[Replica]) -> None:
    async with running_engine(spec.worker, open_worker=spec.open_worker, idle=idle) as engine:
        replica = Replica(spec.name, engine, spec.worker.host)
        with remembering(replica, spec.worker.prefix_folder):
            task_status.started(replica)
            await anyio.sleep_forever()


async def _restart_at_signals(router: Router) -> None:
    with anyio.open_signal_receiver(RESTART_SIGNAL) as signals:
        async for _ in signals:
            await router.restart_each()
