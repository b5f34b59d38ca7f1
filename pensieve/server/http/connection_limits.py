"""Size limits and timeouts of a client connection; protocol.py enforces them."""

from dataclasses import dataclass

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100


@dataclass(frozen=True, slots=True)
class ConnectionTimeouts:
    """In seconds."""

    # For the next request; longer than clients keep an idle connection (5 s): they close it.
    idle_s: int = 75
    # For a request's head, from its first byte or the start of the connection.
    head_s: float = 10.0
    # For the rest of a request that was answered before it had arrived.
    rest_s: float = 10.0
    # For a client that has stopped reading.
    stall_s: float = 60.0
