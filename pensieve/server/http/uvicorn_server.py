"""uvicorn, its settings and its end. Only this file and protocol.py, which it loads when something is served, name it."""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from signal import SIGINT, SIGTERM
from typing import TYPE_CHECKING, Any

import anyio
from starlette.types import ASGIApp

from pensieve.server.http.connection_limits import ConnectionTimeouts
from pensieve.server.http.shutdown_grace import GRACE_S

if TYPE_CHECKING:
    import uvicorn

LAST_WORDS_S = 2.0


def http_server(
    app: ASGIApp, *, grace_s: int = GRACE_S, patience: ConnectionTimeouts | None = None
) -> "uvicorn.Server":
    """uvicorn around `app`; logging is ours. grace_s: how long open answers may go on once the server is told to stop.

    h11, not httptools: that one takes headers of any size, and the first of two Host headers (2026-11, uvicorn 0.54).
    """
    import uvicorn

    from pensieve.server.http.protocol import DeadlineProtocol

    patience = patience or ConnectionTimeouts()
    connection: Any = partial(DeadlineProtocol, patience=patience)
    config = uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=patience.idle_s,
        timeout_graceful_shutdown=grace_s,
    )
    return uvicorn.Server(config)


async def run_until_signal(
    server: "uvicorn.Server",
    listeners: Sequence[socket.socket],
    reason_to_end: Callable[[], Awaitable[None]] = anyio.sleep_forever,
) -> bool:
    """Serve until uvicorn has seen a signal and stopped gracefully; a second signal ends open answers at once.

    The return of `reason_to_end` stops it as gracefully as a signal; True where that was it.
    uvicorn raises the signals it took again once it has stopped: taking them here keeps that from ending the process
    before the engine has ended.
    """
    # What is loaded by now stays. Each time the collector went through it, nothing else would run for 30 ms, and a large
    # request makes it go (2026-11-22, two-core Linux machine).
    gc.collect()
    gc.freeze()
    is_left = False
    with anyio.open_signal_receiver(SIGINT, SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:

            async def hurry() -> None:
                await anext(signals)
                await anext(signals)
                for answer in server.server_state.tasks:
                    answer.cancel()

            async def leave() -> None:
                nonlocal is_left
                await reason_to_end()
                is_left = server.should_exit = True

            tasks.start_soon(hurry)
            tasks.start_soon(leave)
            await server.serve(sockets=list(listeners))
            await _last_words(server)
            tasks.cancel_scope.cancel()
    return is_left


async def _last_words(server: "uvicorn.Server") -> None:
    """uvicorn does not wait for the answers that it has cancelled; each has a word to say yet."""
    if server.server_state.tasks:
        await asyncio.wait(server.server_state.tasks, timeout=LAST_WORDS_S)
