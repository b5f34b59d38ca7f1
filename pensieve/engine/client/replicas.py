"""Runs several engines as one: `workers = N`, or the same model on several machines."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGUSR1

import anyio

from pensieve.engine.client.client import IdlePolicy, OpenWorker, running_engine
from pensieve.engine.client.launch import WorkerSpec
from pensieve.engine.client.router import Replica, Router
from pensieve.engine.generation import ResourceLimits

# Restarts the engines one after another.
RESTART_SIGNAL = SIGUSR1


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    name: str
    worker: WorkerSpec
    open_worker: OpenWorker


@asynccontextmanager
async def running_replicas(
    specs: Sequence[ReplicaSpec], *, idle: IdlePolicy
) -> AsyncGenerator[Router]:
    """Run an engine for each spec while the block lasts; entering waits for no model."""
    async with AsyncExitStack() as stack:
        replicas = [
            Replica(
                each.name,
                await stack.enter_async_context(
                    running_engine(each.worker, open_worker=each.open_worker, idle=idle)
                ),
            )
            for each in specs
        ]
        router = Router(replicas)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_restart_at_signals, router)
            yield router
            tasks.cancel_scope.cancel()


async def _restart_at_signals(router: Router) -> None:
    with anyio.open_signal_receiver(RESTART_SIGNAL) as signals:
        async for _ in signals:
            await router.restart_each()


def shared_by(
    workers: int,
    spec: WorkerSpec,
    open_worker: OpenWorker,
    limits: Callable[[], ResourceLimits],  # of this machine, none of them left open
) -> list[ReplicaSpec]:
    """Return the workers of one machine. Each gets its part of memory, disk and writes."""
    whole = limits()
    part = ResourceLimits(
        _part(whole.memory_limit_bytes, workers),
        whole.kv_bits,
        _part(whole.prefix_disk_bytes, workers),
        _part(whole.daily_write_bytes, workers),
        whole.is_wired,
    )
    return [
        ReplicaSpec(
            f"worker-{number}",
            replace(
                spec, limits=part, prefix_folder=_folder(spec.prefix_folder, f"worker-{number}")
            ),
            open_worker,
        )
        for number in range(1, workers + 1)
    ]


def _part(whole: int | None, workers: int) -> int | None:
    return None if whole is None else whole // workers


def _folder(folder: Path | None, name: str) -> Path | None:
    # Two workers that write into one folder would exceed its limit.
    return folder and folder / name
