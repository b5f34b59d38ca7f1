"""The engine worker on another machine than the front end's: frames over two pipes of ssh.

It ends when the connection does, also while it is stuck in a long step or in loading: the thread
that reads the connection notices. Run as `python -m pensieve.hosts.worker_process IN OUT LOAD
[PLACE]`.
"""

import json
import os
import select
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
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
_RECEIVE_BYTES = 1 << 20


class Pipes:
    """Two descriptors with the methods of a socket that the worker needs.

    A thread reads all the time, since only reading shows on every system that the other end is
    closed: macOS's poll(2) does not report a hangup alone (Apple's radar 37537852).
    """

    def __init__(
        self,
        into: int,
        out: int,
        on_end: Callable[[], object],  # called in the thread, once the end can be received
        silence_s: float = SILENCE_S,  # that counts as the end
    ) -> None:
        self._into = into
        self._out = out
        self._on_end = on_end
        self._silence_s = silence_s
        self._changed = threading.Condition()
        self._received = bytearray()
        self._has_ended = False
        # Readable while there is something to receive, or the end.
        self._wakeup, self._ring = os.pipe()
        threading.Thread(target=self._read, daemon=True).start()

    def fileno(self) -> int:
        return self._wakeup

    def recv(self, max_bytes: int, /) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._received or self._has_ended)
            content = bytes(self._received[:max_bytes])
            del self._received[:max_bytes]
            if not self._received and not self._has_ended:
                os.read(self._wakeup, 1)
        return content

    def sendall(self, data: bytes, /) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._out, rest) :]

    def set_inheritable(self, inheritable: bool, /) -> None:  # noqa: FBT001 -- as a socket's
        for descriptor in (self._into, self._out):
            os.set_inheritable(descriptor, inheritable)

    def _read(self) -> None:
        while content := self._next_bytes():
            with self._changed:
                if not self._received:
                    os.write(self._ring, b"!")
                self._received += content
                self._changed.notify()
        with self._changed:
            self._has_ended = True
            os.write(self._ring, b"!")
            self._changed.notify()
        self._on_end()

    def _next_bytes(self) -> bytes:
        """Wait for the next bytes; empty: the front end is gone."""
        readable, _, _ = select.select([self._into], [], [], self._silence_s)
        try:
            return os.read(self._into, _RECEIVE_BYTES) if readable else b""
        except OSError:
            return b""


def end_after_grace() -> None:
    """End the process, unless it ends by itself before."""
    sleep(GRACE_S)
    os._exit(GONE)


def localized(load: Load, changes: dict[str, Any]) -> Load:
    """Return the frame with this machine's folders, device and limits."""
    limits = ResourceLimits(**changes["limits"])
    return replace(load, **{**changes, "limits": limits})


def main(into: int, out: int, changes: dict[str, Any], place: str = "") -> None:
    """place: of a rank of one model; empty for a worker that has the whole model."""
    settings = settings_module.resolve()
    logs.set_up(is_debug=settings.is_debug, is_json=False)
    SleepBlocker(awake_command(is_enabled=settings.keep_awake)).hold()
    localize = partial(localized, changes=changes)
    if place:
        from pensieve.engine.ranks.place import loads
        from pensieve.engine.ranks.rank import follow

        follow(into, out, loads(place), localize)
    run(FrontEnd(Pipes(into, out, end_after_grace)), localize)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), *sys.argv[4:])
