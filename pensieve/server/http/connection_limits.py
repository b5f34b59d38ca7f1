"""What a connection may send and how long the server waits for it (protocol.py enforces it)."""

from dataclasses import dataclass

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100


@dataclass(frozen=True, slots=True)
class ConnectionTimeouts:
    """How long a connection waits for its client, in seconds.

    idle_s: for the next request; longer than clients keep a connection (5 s), so that it is they who close it.
    head_s: for a request's head, from its first byte or the connection's start. rest_s: for what a client still sends
    after it was answered. stall_s: for one that has stopped reading.
    """

    idle_s: int = 75
    head_s: float = 10.0
    rest_s: float = 10.0
    stall_s: float = 60.0
