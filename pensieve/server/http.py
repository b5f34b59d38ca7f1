"""uvicorn, its settings and its end. The only file that names it."""

import socket
from signal import SIGINT, SIGTERM
from typing import TYPE_CHECKING

import anyio
from starlette.types import ASGIApp

if TYPE_CHECKING:
    import uvicorn

GRACE_S = 5
MAX_HEAD_BYTES = 32 * 1024


def http_server(app: ASGIApp, *, grace_s: int = GRACE_S) -> "uvicorn.Server":
    """uvicorn around `app`. h11, since it refuses two Host headers and long heads; logging is ours.

    grace_s: how long open answers may go on once the server is told to stop.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_graceful_shutdown=grace_s,
    )
    return uvicorn.Server(config)


async def run_until_signal(server: "uvicorn.Server", listener: socket.socket) -> None:
    """Serve until uvicorn has seen a signal and stopped gracefully; a second signal ends open answers at once.

    uvicorn raises the signals it took again once it has stopped: taking them here keeps that from ending the process
    before the engine has ended.
    """
    with anyio.open_signal_receiver(SIGINT, SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:

            async def hurry() -> None:
                await anext(signals)
                await anext(signals)
                for answer in server.server_state.tasks:
                    answer.cancel()

            tasks.start_soon(hurry)
            await server.serve(sockets=[listener])
            tasks.cancel_scope.cancel()
