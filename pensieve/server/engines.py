"""Runs the engine that the settings ask for: here, on another machine, or several as one."""

import shlex
import shutil
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from pensieve.engine.client.client import IdlePolicy, OpenWorker, WorkerSpec, running_engine
from pensieve.engine.client.launch import open_worker, resource_limits_of
from pensieve.engine.client.replicas import ReplicaSpec, running_replicas, shared_by
from pensieve.engine.disk.block_store import default_limits
from pensieve.engine.generation import Engine, ResourceLimits
from pensieve.machine import inspect
from pensieve.models.catalog.expected_model import context_on_mac
from pensieve.models.catalog.memory_fit import memory_limit_here
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.settings.resolve import LOCAL, Settings


def running(
    settings: Settings, model: ModelFolder, spec: WorkerSpec
) -> AbstractAsyncContextManager[Engine]:
    """Return the engine for `model`, which runs while its block lasts."""
    idle = IdlePolicy(settings.idle_unload * 60)
    match replica_specs(settings, model, spec):
        case [only]:
            return running_engine(only.worker, open_worker=only.open_worker, idle=idle)
        case several:
            return running_replicas(several, idle=idle)


def replica_specs(
    settings: Settings, model: ModelFolder, spec: WorkerSpec
) -> Sequence[ReplicaSpec]:
    """Return what runs where: a whole engine for each."""
    hosts = settings.remote_hosts or (LOCAL,)
    found: list[ReplicaSpec] = []
    for host in hosts:
        if host != LOCAL:
            found.append(
                ReplicaSpec(host, replace(spec, host=host), _opener(host, settings, model))
            )
            continue
        own = replace(spec, planned_tokens=context_on_mac(model.folder, settings))
        if settings.workers == 1:
            found.append(ReplicaSpec(LOCAL, own, open_worker))
        else:
            found += shared_by(settings.workers, own, open_worker, lambda: whole_limits(settings))
    return found


def whole_limits(settings: Settings) -> ResourceLimits:
    """Return this machine's limits; a worker alone would find them by itself."""
    chosen = resource_limits_of(settings)
    here = _existing(settings.paths.prefixes)
    default = default_limits(shutil.disk_usage(here).free)
    disk, daily = chosen.prefix_disk_bytes, chosen.daily_write_bytes
    return replace(
        chosen,
        memory_limit_bytes=memory_limit_here(inspect(), settings).limit_bytes,
        prefix_disk_bytes=default.cap_bytes if disk is None else disk,
        daily_write_bytes=default.daily_bytes if daily is None else daily,
    )


def _opener(host: str, settings: Settings, model: ModelFolder) -> OpenWorker:
    from pensieve.hosts.model_identity import name_of
    from pensieve.hosts.opening import opener

    return opener(shlex.split(settings.ssh_command), host, name_of(model))


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())
