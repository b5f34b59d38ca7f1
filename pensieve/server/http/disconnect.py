"""Cancels the work of a client that disconnects, and aborts a connection in mid-answer.

The one place that opens a task group for a request.
"""

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

Work = Callable[[], Coroutine[Any, Any, None]]
Abort = Callable[[], None]

# The key in ASGI's `extensions` under which protocol.py passes the abort function.
ABORT = "pensieve.abort"


def abort_of(scope: Scope) -> Abort | None:
    """Return what closes the connection at once, so that the client sees a truncated answer.

    None without a real connection, as in tests.
    """
    return scope.get("extensions", {}).get(ABORT)


async def run_until_disconnect(
    receive: Receive, work: Work, background: Work | None = None
) -> None:
    """Run `work`, with `background` next to it. The request's body must have been read.

    Raises `ClientDisconnect` if the client left before the end. Errors come out as they were
    raised, not in a group.
    """
    is_done = False
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_on_disconnect, receive, tasks.cancel_scope)
            if background is not None:
                tasks.start_soon(background)
            await work()
            is_done = True
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    if not is_done:
        raise ClientDisconnect


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
