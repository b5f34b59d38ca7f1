"""Runs the engine that the settings ask for: here, on another machine, or several as one."""

import shlex
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from pensieve.engine.client.client import IdlePolicy, running_engine
from pensieve.engine.client.launch import OpenWorker, ReplicaSpec, WorkerSpec, open_worker
from pensieve.engine.disk.shares import adopt_unused, share
from pensieve.engine.generation import Engine
from pensieve.models.catalog.expected_model import context_on_mac
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.settings.resolve import LOCAL, Settings


def running(
    settings: Settings, model: ModelFolder, spec: WorkerSpec
) -> AbstractAsyncContextManager[Engine]:
    """Return the engine for `model`, which runs while its block lasts."""
    idle = IdlePolicy(settings.idle_unload * 60)
    adopt_unused(settings.paths.prefixes, settings.workers)
    match replica_specs(settings, model, spec):
        case [only]:
            return running_engine(only.worker, open_worker=only.open_worker, idle=idle)
        case several:
            from pensieve.engine.client.replicas import running_replicas

            return running_replicas(several, idle=idle)


def replica_specs(
    settings: Settings, model: ModelFolder, spec: WorkerSpec
) -> Sequence[ReplicaSpec]:
    """Return what runs where: a whole engine for each, or one over several machines."""
    if settings.hostfile:
        return [ReplicaSpec(LOCAL, spec, _group_opener(settings, model))]
    found: list[ReplicaSpec] = []
    for host in settings.remote_hosts or (LOCAL,):
        if host == LOCAL:
            own = replace(spec, planned_tokens=context_on_mac(model.folder, settings))
            found += _workers(settings.workers, own)
        else:
            opener = _opener(host, settings, model)
            found.append(ReplicaSpec(host, replace(spec, host=host), opener))
    return found


def _workers(count: int, spec: WorkerSpec) -> list[ReplicaSpec]:
    """Return the workers of this machine, which share its memory, disk and daily writes."""
    if count == 1:
        return [ReplicaSpec(LOCAL, spec, open_worker)]
    spec = replace(spec, limits=replace(spec.limits, engines=count))
    return [
        ReplicaSpec(
            f"worker-{number}",
            replace(spec, prefix_folder=spec.prefix_folder and share(spec.prefix_folder, number)),
            open_worker,
        )
        for number in range(1, count + 1)
    ]


def _group_opener(settings: Settings, model: ModelFolder) -> OpenWorker:
    from pensieve.hosts.model_identity import name_of
    from pensieve.hosts.ranks import hosts_of, opener

    hostfile = hosts_of(Path(settings.hostfile).expanduser())
    return opener(shlex.split(settings.ssh_command), hostfile, name_of(model))


def _opener(host: str, settings: Settings, model: ModelFolder) -> OpenWorker:
    from pensieve.hosts.model_identity import name_of
    from pensieve.hosts.opening import opener

    return opener(shlex.split(settings.ssh_command), host, name_of(model))
