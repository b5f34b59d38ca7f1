"""HTTP by hand: send bytes over a socket; read one response, or until the server closes."""

import json
from dataclasses import dataclass

import anyio
import httpx
from anyio.abc import SocketStream

from tests.server.serving import CALL, KEY

BODY = json.dumps(CALL).encode()
HOST = b"host: localhost"
KEY_LINE = b"x-api-key: " + KEY.encode()
JSON_LINE = b"content-type: application/json"
LENGTH = b"content-length: %d" % len(BODY)


def head(*lines: bytes, first: bytes = b"POST /v1/messages HTTP/1.1") -> bytes:
    return b"\r\n".join([first, *lines, b"", b""])


def call_bytes(**changes: object) -> bytes:
    body = json.dumps(CALL | changes).encode()
    return head(HOST, KEY_LINE, JSON_LINE, b"content-length: %d" % len(body)) + body


CALL_BYTES = call_bytes()


@dataclass(frozen=True)
class Raw:
    """One response as received."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, str]:
        """Return the error, after checking Anthropic's envelope."""
        envelope = json.loads(self.body)
        assert envelope.keys() == {"type", "error", "request_id"}
        assert envelope["type"] == "error"
        assert envelope["request_id"] == self.headers["request-id"]
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-should-retry"] == "false"
        assert envelope["error"].keys() <= {"type", "message", "details"}
        return envelope["error"]


async def connect(url: str) -> SocketStream:
    address = httpx.URL(url)
    return await anyio.connect_tcp(address.host, address.port)


async def ask(url: str, sent: bytes) -> Raw:
    """Return the response to `sent` on its own connection."""
    with anyio.fail_after(10):
        async with await connect(url) as connection:
            await connection.send(sent)
            return await response_of(connection)


async def response_of(connection: SocketStream) -> Raw:
    """Read the next response; its body by content-length."""
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += await connection.receive()
    before, _, body = bytes(received).partition(b"\r\n\r\n")
    status_line, *lines = before.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += await connection.receive()
    return Raw(int(status_line.split()[1]), headers, body)


async def is_closed(connection: SocketStream) -> bool:
    """Wait until the server has closed; return False if it sends something first."""
    try:
        await connection.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return True
    return False
