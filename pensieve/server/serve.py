"""The server process: one model, one engine, one listening socket, until a signal."""

import socket
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from pensieve.engine.client import WorkerSpec, running_engine
from pensieve.engine.generation import Allowance
from pensieve.models.expected import context_on_mac
from pensieve.models.folder import ModelFolder
from pensieve.settings import Device, Settings

if TYPE_CHECKING:
    from pensieve.models.served import ServedModel

GB = 10**9


def serve(settings: Settings, model: ModelFolder, device: Device, listener: socket.socket) -> None:
    """Serve `model` on the bound `listener` until SIGTERM or SIGINT.

    Open answers get 15 s to end, then they are ended with an error that clients take for a busy server; a second signal
    ends them at once. The worker ends with the server.
    Raises what `open_model` raises for a damaged model.
    """
    anyio.run(partial(_serve, replace(settings, device=device), model, device, listener))


async def _serve(
    settings: Settings, model: ModelFolder, device: Device, listener: socket.socket
) -> None:
    planned_tokens = context_on_mac(model.folder, settings)
    spec = WorkerSpec(
        model.folder, device, settings.paths.prefixes, allowance_of(settings), planned_tokens
    )
    async with running_engine(spec) as engine:
        # In a thread, so that the worker is on its way with the weights meanwhile.
        served = await anyio.to_thread.run_sync(_opened, model)

        from pensieve.server.app import build_app
        from pensieve.server.http import http_server, run_until_signal

        app = build_app(engine, served, settings)
        async with app.router.lifespan_context(app):
            await run_until_signal(http_server(app), listener)


def _opened(model: ModelFolder) -> "ServedModel":
    """The front end's side of the model; by then all that the server is made of is imported, which takes half a second."""
    from pensieve.models.load import open_model

    for part in ("app", "http"):
        import_module(f"pensieve.server.{part}")
    return open_model(model)


def allowance_of(settings: Settings) -> Allowance:
    """What the engine may use, in its own units."""
    return Allowance(
        _bytes(settings.memory_gb),
        settings.kv_bits,
        _bytes(settings.cache_gb),
        _bytes(settings.daily_write_gb),
        settings.wired,
    )


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * GB)
