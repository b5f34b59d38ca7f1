"""The engine worker on another machine than the front end's: frames over two pipes of ssh.

It ends when the connection does, also while it is stuck in a long step or in loading: a thread
watches for that. Run as `python -m pensieve.hosts.worker_process IN OUT LOAD`.
"""

import json
import os
import select
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from time import sleep
from typing import Any

from pensieve import logs
from pensieve.engine.generation import ResourceLimits
from pensieve.engine.protocol import Load
from pensieve.engine.worker.front_end import FrontEnd
from pensieve.engine.worker.worker import run
from pensieve.settings import resolve as settings_module
from pensieve.sleep_blocker import SleepBlocker, awake_command

# The front end shows itself every 5 s (engine/client/client.py). After more silence than a busy
# network explains, it is gone, and this machine's memory is needed.
SILENCE_S = 60.0
# For a worker whose connection broke to end by itself, with its prefixes on disk.
GRACE_S = 15.0
GONE = 71


class Pipes:
    """Two descriptors with the methods of a socket that the worker needs."""

    def __init__(self, into: int, out: int) -> None:
        self._into = into
        self._out = out

    def fileno(self) -> int:
        return self._into

    def recv(self, max_bytes: int, /) -> bytes:
        return os.read(self._into, max_bytes)

    def sendall(self, data: bytes, /) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._out, rest) :]

    def set_inheritable(self, inheritable: bool, /) -> None:  # noqa: FBT001 -- as a socket's
        for descriptor in (self._into, self._out):
            os.set_inheritable(descriptor, inheritable)


def end_with_connection(
    descriptor: int, end: Callable[[int], object] = os._exit, grace_s: float = GRACE_S
) -> None:
    """Wait until the other end of a pipe is closed, then `grace_s`, then end the process."""
    hangup = select.poll()
    hangup.register(descriptor, 0)  # only errors and hangups
    hangup.poll()
    sleep(grace_s)
    end(GONE)


def localized(load: Load, changes: dict[str, Any]) -> Load:
    """Return the frame with this machine's folders, device and limits."""
    limits = ResourceLimits(**changes["limits"])
    return replace(load, **{**changes, "limits": limits})


def main(into: int, out: int, changes: dict[str, Any]) -> None:
    settings = settings_module.resolve()
    logs.set_up(is_debug=settings.is_debug, is_json=False)
    SleepBlocker(awake_command(is_enabled=settings.keep_awake)).hold()
    threading.Thread(target=end_with_connection, args=(into,), daemon=True).start()
    run(FrontEnd(Pipes(into, out), SILENCE_S), lambda load: localized(load, changes))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
