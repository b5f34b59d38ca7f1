"""Configures uvicorn and ends it.

Only this module and protocol.py, which it loads at start, import uvicorn.
"""

import asyncio
import gc
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from signal import SIGINT, SIGTERM
from typing import TYPE_CHECKING, Any

import anyio
from starlette.types import ASGIApp, Scope

from pensieve.server.http.connection_limits import ConnectionTimeouts
from pensieve.server.http.shutdown_grace import GRACE_S
from pensieve.server.wire import ANTHROPIC, Wire

if TYPE_CHECKING:
    import uvicorn

FINAL_SEND_TIMEOUT_S = 2.0


def http_server(
    app: ASGIApp,
    *,
    grace_s: int = GRACE_S,
    timeouts: ConnectionTimeouts | None = None,
    wire_of: Callable[[Scope], Wire] = lambda _: ANTHROPIC,
    tls: ssl.SSLContext | None = None,
) -> "uvicorn.Server":
    """Return uvicorn around `app`; after a stop open answers get `grace_s`. tls: None for http.

    wire_of: in which wire a request with a broken body is refused.
    h11, not httptools: that one accepts headers of any size, and the first of two Host headers
    (2026-11, uvicorn 0.54).
    """
    import uvicorn

    from pensieve.server.http.protocol import DeadlineProtocol

    timeouts = timeouts or ConnectionTimeouts()
    connection: Any = partial(DeadlineProtocol, timeouts=timeouts, wire_of=wire_of)
    config = uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=timeouts.idle_s,
        timeout_graceful_shutdown=grace_s,
        ssl_context_factory=None if tls is None else partial(_given, tls),
    )
    return uvicorn.Server(config)


def _given(tls: ssl.SSLContext, *_: object) -> ssl.SSLContext:
    return tls


async def run_until_signal(
    server: "uvicorn.Server",
    listeners: Sequence[socket.socket],
    reason_to_end: Callable[[], Awaitable[None]] = anyio.sleep_forever,
) -> bool:
    """Serve until a signal and a graceful stop; a second signal ends open answers at once.

    When `reason_to_end` returns, the server stops as after a signal; return True in that case.
    uvicorn raises the signals that it took again after it has stopped: receiving them here prevents
    that from ending the process before the engine has ended. A signal that comes later, while the
    engine writes to disk, is handled as before the call.
    """
    # Objects loaded by now live for ever. Each full collection over them would stop everything for
    # 30 ms, and a large request triggers one (2026-11-22, two-core Linux machine).
    gc.collect()
    gc.freeze()
    is_reason_met = False
    with _handlers_restored(), anyio.open_signal_receiver(SIGINT, SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:

            async def cancel_on_second_signal() -> None:
                await anext(signals)
                await anext(signals)
                for answer in server.server_state.tasks:
                    answer.cancel()

            async def stop_for_reason() -> None:
                nonlocal is_reason_met
                await reason_to_end()
                is_reason_met = server.should_exit = True

            tasks.start_soon(cancel_on_second_signal)
            tasks.start_soon(stop_for_reason)
            await server.serve(sockets=list(listeners))
            await _wait_for_cancelled(server)
            tasks.cancel_scope.cancel()
    return is_reason_met


@contextmanager
def _handlers_restored() -> Generator[None]:
    """Restore the handlers of SIGINT and SIGTERM after the block: asyncio sets the defaults."""
    before = {number: signal.getsignal(number) for number in (SIGINT, SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _wait_for_cancelled(server: "uvicorn.Server") -> None:
    """Wait for cancelled answers to send their final event; uvicorn does not."""
    if server.server_state.tasks:
        await asyncio.wait(server.server_state.tasks, timeout=FINAL_SEND_TIMEOUT_S)
