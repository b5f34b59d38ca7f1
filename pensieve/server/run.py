"""The server process: one model, one engine, one listening socket, until a signal."""

import logging
import os
import resource
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from pensieve.engine.client.client import IdlePolicy, WorkerSpec, running_engine
from pensieve.engine.generation import Engine, ResourceLimits
from pensieve.errors import ProgramReplacedError
from pensieve.homebrew import is_installed
from pensieve.models.catalog.expected_model import context_on_mac
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.private_files import PRIVATE_UMASK
from pensieve.server.allocator import return_large_allocations
from pensieve.server.awake_engine import AwakeEngine
from pensieve.server.http.shutdown_grace import grace_s
from pensieve.settings.resolve import DEFAULT_API_KEY, Device, Settings, homebrew_service
from pensieve.sleep_blocker import SleepBlocker, awake_command

if TYPE_CHECKING:
    from pensieve.models.served_model import ServedModel

_log = logging.getLogger("pensieve.server")

GB = 10**9
# launchd and Terminal start programs with 256; a connection takes one, and so does each file that is sent.
OPEN_FILES = 4096
# Between two looks whether the program is still there.
LOOK_S = 10.0


def run(
    settings: Settings, model: ModelFolder, device: Device, listeners: Sequence[socket.socket]
) -> None:
    """Serve `model` on the bound `listeners` until SIGTERM or SIGINT.

    Open answers get 15 s to end (shutdown_grace.py), then they are ended with an error that clients take for a busy server; a second
    signal ends them at once. The worker ends with the server.
    Raises what `open_model` raises for a damaged model; `ProgramReplacedError` where it ended since its program is gone.
    """
    raise_file_limit()
    return_large_allocations()
    os.umask(PRIVATE_UMASK)
    anyio.run(partial(_serve, replace(settings, device=device), model, device, listeners))


async def _serve(
    settings: Settings, model: ModelFolder, device: Device, listeners: Sequence[socket.socket]
) -> None:
    planned_tokens = context_on_mac(model.folder, settings)
    spec = WorkerSpec(
        model.folder,
        device,
        settings.paths.prefixes,
        allowance_of(settings),
        planned_tokens,
        prefix_salt_of(settings.api_key),
    )
    idle = IdlePolicy(settings.idle_unload * 60)
    with SleepBlocker(awake_command(is_wanted=settings.keep_awake)) as blocker:
        async with running_engine(spec, idle=idle) as engine:
            # In a thread, so that the worker is on its way with the weights meanwhile.
            served = await anyio.to_thread.run_sync(_opened, model)
            is_replaced = await _listen(AwakeEngine(engine, blocker), served, settings, listeners)
    if is_replaced:
        raise ProgramReplacedError


async def _listen(
    engine: Engine, served: "ServedModel", settings: Settings, listeners: Sequence[socket.socket]
) -> bool:
    """Serve until a signal, or until the program is gone; return whether it is gone."""
    from pensieve.server.app import build_app
    from pensieve.server.http.uvicorn_server import http_server, run_until_signal

    app = build_app(engine, served, settings)
    grace = await anyio.to_thread.run_sync(grace_s, homebrew_service())
    async with app.router.lifespan_context(app):
        server = http_server(app, grace_s=grace)
        return await run_until_signal(server, listeners, program_removed)


async def program_removed(
    is_installed: Callable[[], bool] = is_installed, look_s: float = LOOK_S
) -> None:
    """Return once the program is gone: no worker and no grammar's trial can be started from it any more."""
    while is_installed():  # noqa: ASYNC110 -- nothing tells of a removal
        await anyio.sleep(look_s)
    _log.warning("the program was replaced or removed: the server ends once open answers have")


def raise_file_limit(limits: Any = resource) -> None:
    """Allow as many open files and connections as the system lets us, up to `OPEN_FILES`; never fewer than before."""
    soft, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    if soft == limits.RLIM_INFINITY or soft >= OPEN_FILES:
        return
    most = OPEN_FILES if hard == limits.RLIM_INFINITY else min(hard, OPEN_FILES)
    with suppress(OSError, ValueError):
        limits.setrlimit(limits.RLIMIT_NOFILE, (most, hard))


def _opened(model: ModelFolder) -> "ServedModel":
    """The front end's side of the model; by then all that the server is made of is imported, which takes half a second."""
    from pensieve.models.load import open_model

    for part in ("app", "http"):
        import_module(f"pensieve.server.{part}")
    return open_model(model)


def prefix_salt_of(api_key: str) -> str:
    """Return what keeps prompts that were kept under another key from being found, and felt out, under this one.

    Empty for the default key: what was kept without one stays of use.
    """
    if api_key == DEFAULT_API_KEY:
        return ""
    return blake2b(api_key.encode(errors="replace"), person=b"prefixes").hexdigest()


def allowance_of(settings: Settings) -> ResourceLimits:
    """What the engine may use, in its own units."""
    return ResourceLimits(
        _bytes(settings.memory_gb),
        settings.kv_bits,
        _bytes(settings.cache_gb),
        _bytes(settings.daily_write_gb),
        settings.wired,
    )


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * GB)
