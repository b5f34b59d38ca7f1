"""The server process: one model, one engine, one listening socket, until a signal."""

import ctypes
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from pensieve.atomic_files import file_of
from pensieve.credentials.certificate import server_certificate
from pensieve.engine.client.launch import WorkerSpec, resource_limits_of
from pensieve.engine.generation import Engine
from pensieve.errors import ProgramReplacedError
from pensieve.installation import is_installed
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.private_files import PRIVATE_UMASK
from pensieve.server.awake_engine import AwakeEngine
from pensieve.server.engines import running
from pensieve.server.http.shutdown_grace import grace_s
from pensieve.settings.resolve import (
    DEFAULT_API_KEY,
    Device,
    Settings,
    homebrew_service,
    variables_without,
)
from pensieve.sleep_blocker import SleepBlocker, awake_command

if TYPE_CHECKING:
    from pensieve.models.served_model import ServedModel
    from pensieve.server.activity.findings import Findings

_log = logging.getLogger("pensieve.server")

# launchd and Terminal start programs with a limit of 256; each connection and each file being sent
# takes one.
OPEN_FILES = 4096
CHECK_INTERVAL_S = 10.0
# With these, prometheus-client keeps its counts in files, for several processes of one server.
SHARED_METRICS = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
M_MMAP_THRESHOLD = -3  # of mallopt(3)
LARGE_BYTES = 1 << 20


def run(
    settings: Settings,
    model: ModelFolder,
    device: Device,
    listeners: Sequence[socket.socket],
    find: Callable[[], "Findings"] = tuple,
) -> None:
    """Serve `model` on the bound `listeners` until SIGTERM or SIGINT.

    Open answers may finish for up to 15 s (shutdown_grace.py), then they end with an error that
    clients treat as a busy server; a second signal ends them at once. The worker ends with the
    server. `find` returns what is wrong with this machine. Raises what `open_model` raises for a
    damaged model, and `ProgramReplacedError` if the server ended because its program was replaced
    or removed.
    """
    raise_file_limit()
    return_large_allocations()
    os.umask(PRIVATE_UMASK)
    settings = replace(settings, device=device)
    anyio.run(partial(_serve, settings, model, device, listeners, find))


async def _serve(
    settings: Settings,
    model: ModelFolder,
    device: Device,
    listeners: Sequence[socket.socket],
    find: Callable[[], "Findings"],
) -> None:
    spec = WorkerSpec(
        model.folder,
        device,
        settings.paths.prefixes,
        resource_limits_of(settings),
        prefix_salt=prefix_salt_of(settings.api_key),
        has_speculation=settings.speculation == "auto",
        has_pictures=settings.pictures != "off",
    )
    with SleepBlocker(awake_command(is_enabled=settings.keep_awake)) as blocker:
        async with running(settings, model, spec) as engine:
            # In a thread, so that the worker loads the weights at the same time.
            served = await anyio.to_thread.run_sync(_open_model, model)
            awake = AwakeEngine(engine, blocker)
            is_replaced = await _listen(awake, served, settings, listeners, find)
    if is_replaced:
        raise ProgramReplacedError


async def _listen(
    engine: Engine,
    served: "ServedModel",
    settings: Settings,
    listeners: Sequence[socket.socket],
    find: Callable[[], "Findings"],
) -> bool:
    """Serve until a signal or until the program is removed. Return whether it was removed."""
    from pensieve.server.app import AppParts, build_app
    from pensieve.server.http.uvicorn_server import http_server, run_until_signal
    from pensieve.server.routing import wire_by_head

    certificate = server_certificate(settings.tls_certificate, settings.tls_key)
    names = certificate.names if certificate else ()
    parts = AppParts(find=find, log=file_of(sys.stderr), certificate_names=names)
    app = build_app(engine, served, settings, parts)
    grace = await anyio.to_thread.run_sync(grace_s, homebrew_service())
    async with app.router.lifespan_context(app):
        tls = certificate.context() if certificate else None
        server = http_server(app, grace_s=grace, wire_of=wire_by_head, tls=tls)
        return await run_until_signal(server, listeners, program_removed)


async def program_removed(
    is_installed: Callable[[], bool] = is_installed, interval_s: float = CHECK_INTERVAL_S
) -> None:
    """Return once the program is gone, when no worker or trial compilation can start any more."""
    while is_installed():  # noqa: ASYNC110 -- no event reports a removal
        await anyio.sleep(interval_s)
    _log.warning("the program was replaced or removed, stopping after open answers finish")


def raise_file_limit(limits: Any = resource) -> None:
    """Raise the limit of open files as far as allowed, up to `OPEN_FILES`. Never lowers it."""
    soft, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    if soft == limits.RLIM_INFINITY or soft >= OPEN_FILES:
        return
    limit = OPEN_FILES if hard == limits.RLIM_INFINITY else min(hard, OPEN_FILES)
    with suppress(OSError, ValueError):
        limits.setrlimit(limits.RLIMIT_NOFILE, (limit, hard))


def return_large_allocations(libc: Any = None) -> None:
    """Allocate blocks of `LARGE_BYTES` and more with mmap. Freeing one returns it to the system.

    By default glibc, after the first large body, allocates the next ones from per-thread heaps and
    keeps them, and `malloc_trim` does not reach the top of such a heap: 8 requests of 31 MiB at
    once left 186 to 248 MiB in a real server, with these settings 2 to 3 (2026-11-30, Linux, glibc
    2.36). macOS has no `mallopt`; what it keeps was not measured.
    """
    libc = libc or ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def _open_model(model: ModelFolder) -> "ServedModel":
    from pensieve.models.load import open_model

    import_server()
    return open_model(model)


def import_server() -> None:
    """Import the server's modules, which takes half a second."""
    with variables_without(SHARED_METRICS):
        for module in ("app", "http.protocol"):
            import_module(f"pensieve.server.{module}")


def prefix_salt_of(api_key: str) -> str:
    """Return a salt that separates the cached prefixes of this key from those of other keys.

    Without it a client with one key could probe by timing for prompts cached under another. Empty
    for the default key, so that prefixes cached without a salt stay valid.
    """
    if api_key == DEFAULT_API_KEY:
        return ""
    return blake2b(api_key.encode(errors="replace"), person=b"prefixes").hexdigest()
