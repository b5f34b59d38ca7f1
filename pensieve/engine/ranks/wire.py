"""What the ranks of one model tell each other next to their tensors.

Every rank runs the same program. Whatever could differ from machine to machine (requests, the
clock, what is on disk) is decided by rank 0 and heard by the others in the same order, or is the
least of all. One connection per follower carries lines of JSON: ssh's standard streams, or pipes.

A rank whose peer ends, falls silent, makes no progress or says something else than expected ends
its process at once, wherever its main thread waits: MLX waits for ever in a collective whose other
side is gone or stopped. The front end then restarts the whole group.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NoReturn, Protocol

_log = logging.getLogger("pensieve.engine")

# Exit codes, which the front end explains (engine/client/launch.py).
PEER_GONE, PEER_SILENT, STUCK, DIVERGED, STEP_FAILED = 71, 72, 73, 75, 76

BEAT_S = 0.5
SILENCE_S = 5.0
# While loading, Python holds its lock for long: libraries are read from disk.
LOADING_SILENCE_S = 60.0
# Between two words while there is work; a chunk takes `LONE_CHUNK_S` (scheduling/prefill_chunks.py)
# at most. Heartbeats alone do not show a rank that waits in a collective for ever.
STUCK_S = 30.0

Leave = Callable[[int, str], Any]


def leave(code: int, reason: str) -> NoReturn:
    """End this process: no other thread could be stopped in a collective."""
    _log.error("this rank ends: %s", reason)
    os._exit(code)


class RankFailedError(ValueError):
    """Another rank could not load its part of the model."""


class Progress:
    """When this rank has to be done with what it does; used by all of its threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until_s: float | None = None  # None: it waits for another rank or for requests
        self._announced_s = 0.0
        self.is_ending = False  # the front end has asked for it

    def expect(self, seconds: float) -> None:
        """Allow more time for what begins now."""
        self._announced_s = self._clock() + seconds
        self.work()

    def work(self) -> None:
        self._until_s = max(self._clock(), self._announced_s) + STUCK_S

    def rest(self) -> None:
        self._until_s = None

    @property
    def is_late(self) -> bool:
        until_s = self._until_s
        return until_s is not None and self._clock() > until_s


class Peer:
    """One end of the connection with another rank.

    Three threads: one reads it, one shows that this rank lives, and one ends the process if the
    other rank is silent or this one makes no progress. The last never writes: writing to a stopped
    rank may block for ever.
    """

    def __init__(
        self,
        name: str,
        into: int,
        out: int,
        progress: Progress,
        leave: Leave = leave,
    ) -> None:
        self.name = name
        self.silence_s = LOADING_SILENCE_S
        self._out = out
        self._progress = progress
        self._leave = leave
        self._lock = threading.Lock()
        self._lines = SimpleQueue[Any]()
        self._heard_s = time.monotonic()
        for run in (lambda: self._read(into), self._beat, self._watch):
            threading.Thread(target=run, daemon=True).start()

    def send(self, value: Any) -> None:
        self._write(json.dumps(value, separators=(",", ":")).encode() + b"\n")

    def receive(self) -> Any:
        """Wait for the next line."""
        return self._lines.get()

    def _write(self, line: bytes) -> bool:
        """Return whether the other rank was there."""
        try:
            with self._lock:
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(self._out, rest) :]
        except OSError:
            self._note_end()
            return False
        return True

    def _note_end(self) -> None:
        if not self._progress.is_ending:
            self._leave(PEER_GONE, f"{self.name} is gone")

    def _read(self, into: int) -> None:
        try:
            with os.fdopen(into, "rb") as stream:
                for line in stream:
                    self._heard_s = time.monotonic()
                    if line != b"\n":  # a heartbeat
                        self._lines.put(json.loads(line))
        except (OSError, ValueError) as error:
            self._leave(DIVERGED, f"{self.name} cannot be understood: {error}")
            return
        self._note_end()

    def _beat(self) -> None:
        while self._write(b"\n"):
            time.sleep(BEAT_S)

    def _watch(self) -> None:
        while True:
            time.sleep(BEAT_S)
            if time.monotonic() - self._heard_s > self.silence_s:
                self._leave(PEER_SILENT, f"{self.name} has been silent for {self.silence_s:.0f} s")
                return
            if self._progress.is_late:
                self._leave(STUCK, "no progress: another rank, or MLX, hangs")
                return


class Wire(Protocol):
    """One rank's side of all decisions."""

    @property
    def is_lead(self) -> bool: ...

    def decide(self, kind: str, make: Callable[[], Any]) -> Any:
        """Return what rank 0 makes, as JSON has it. `make` is called there alone."""
        ...

    def least(self, kind: str, value: int) -> int:
        """Return the smallest of all ranks' values. Waits for all of them."""
        ...

    def fail(self, reason: str) -> None:
        """Tell rank 0 why this one cannot go on; rank 0 itself tells no one."""
        ...

    def end_loading(self) -> None:
        """From now on, silence is noticed sooner."""
        ...

    def end(self) -> None:
        """From now on, the end of another rank is expected."""
        ...

    def wait_closed(self) -> None:
        """After `end`, wait until all ranks have closed what they write to."""
        ...


class Lead:
    """Rank 0's side."""

    is_lead = True

    def __init__(self, peers: Sequence[Peer], progress: Progress, leave: Leave = leave) -> None:
        self._peers = peers
        self._progress = progress
        self._leave = leave
        self._decided = 0

    def decide(self, kind: str, make: Callable[[], Any]) -> Any:
        self._progress.rest()  # it may wait for requests
        value = make()
        self._progress.work()
        for peer in self._peers:
            peer.send([self._decided, kind, value])
        self._decided += 1
        return value

    def least(self, kind: str, value: int) -> int:
        self._progress.rest()
        values = [self._value_of(peer, kind) for peer in self._peers]
        return self.decide(kind, lambda: min([value, *values]))

    def _value_of(self, peer: Peer, kind: str) -> int:
        named, value = peer.receive()
        if named == "failed":
            raise RankFailedError(f"{peer.name}: {value}")
        if named != kind:
            self._leave(
                DIVERGED, f"ranks differ: {peer.name} is at {named!r}, this one at {kind!r}"
            )
        return value

    def fail(self, reason: str) -> None:
        pass

    def end_loading(self) -> None:
        for peer in self._peers:
            peer.silence_s = SILENCE_S

    def end(self) -> None:
        self._progress.is_ending = True

    def wait_closed(self) -> None:
        if self._progress.is_ending:
            self.least("closed", 1)


class Follower:
    """The side of any other rank."""

    is_lead = False

    def __init__(self, lead: Peer, progress: Progress, leave: Leave = leave) -> None:
        self._lead = lead
        self._progress = progress
        self._leave = leave
        self._heard = 0

    def decide(self, kind: str, make: Callable[[], Any]) -> Any:
        self._progress.rest()
        number, named, value = self._lead.receive()
        if (number, named) != (self._heard, kind):
            place = f"{number} {named!r} instead of {self._heard} {kind!r}"
            self._leave(DIVERGED, f"ranks differ: rank 0 decided {place}")
        self._heard += 1
        self._progress.work()
        return value

    def least(self, kind: str, value: int) -> int:
        self._lead.send([kind, value])
        return self.decide(kind, lambda: None)

    def fail(self, reason: str) -> None:
        self._lead.send(["failed", reason])

    def end_loading(self) -> None:
        self._lead.silence_s = SILENCE_S

    def end(self) -> None:
        self._progress.is_ending = True

    def wait_closed(self) -> None:
        if self._progress.is_ending:
            self.least("closed", 1)
