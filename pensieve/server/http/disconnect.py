"""Either side may leave: work that is left the moment its client goes, and a client that is left in mid-answer.

The one place that opens a task group for a request.
"""

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

Work = Callable[[], Coroutine[Any, Any, None]]
Cut = Callable[[], None]

# The name in ASGI's `extensions` under which a real connection (protocol.py) says how it is cut.
ABORT = "pensieve.abort"


def abort_of(scope: Scope) -> Cut | None:
    """What closes the connection as it is, so that the client sees its answer end in the middle. None where there is none."""
    return scope.get("extensions", {}).get(ABORT)


async def run_until_disconnect(receive: Receive, work: Work, beside: Work | None = None) -> None:
    """Do `work`, with `beside` running next to it. The request's body must have been read.

    Raises `ClientDisconnect` where the client left before the end. Errors come out as they were raised, not in a group.
    """
    is_done = False
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_leave_with_client, receive, tasks.cancel_scope)
            if beside is not None:
                tasks.start_soon(beside)
            await work()
            is_done = True
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    if not is_done:
        raise ClientDisconnect


async def _leave_with_client(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
