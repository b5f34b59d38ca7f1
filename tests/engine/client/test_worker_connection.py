"""The front end's end of a worker's socket, over a real socket pair."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import pytest

from pensieve.engine import protocol
from pensieve.engine.client.worker_connection import WorkerConnection
from pensieve.engine.generation import Token
from pensieve.engine.protocol import Cancel, Frame, Step

pytestmark = pytest.mark.anyio
STEPS: list[Frame] = [Step(((1, Token(number)),)) for number in range(50)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class FrameCollector:
    """Collects frames and waits for a number of them."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self._has_more = anyio.Event()

    def take(self, frame: Frame) -> None:
        self.frames.append(frame)
        self._has_more.set()

    async def first(self, count: int) -> list[Frame]:
        with anyio.fail_after(30):
            while len(self.frames) < count:
                self._has_more = anyio.Event()
                await self._has_more.wait()
        return self.frames


@asynccontextmanager
async def connected(
    collector: FrameCollector,
) -> AsyncGenerator[tuple[WorkerConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with theirs:
        connection = await WorkerConnection.over(ours, collector.take)
        try:
            yield connection, theirs
        finally:
            connection.close()
            await connection.wait_closed()


def send_in_pieces(connection: socket.socket, stream: bytes, size: int) -> None:
    for start in range(0, len(stream), size):
        connection.sendall(stream[start : start + size])


async def test_frames_are_received_whole_however_their_bytes_arrive() -> None:
    stream = b"".join(map(protocol.encode, STEPS))
    for size in (1, 3, 7, len(stream)):
        collector = FrameCollector()
        async with connected(collector) as (_, theirs):
            await anyio.to_thread.run_sync(send_in_pieces, theirs, stream, size)
            assert await collector.first(len(STEPS)) == STEPS


async def test_send_does_not_block_and_loses_nothing() -> None:
    many = [Cancel(key) for key in range(100_000)]
    whole = b"".join(map(protocol.encode, many))
    async with connected(FrameCollector()) as (connection, theirs):
        for frame in many:
            connection.send(frame)
        received = b""
        with anyio.fail_after(30):
            while len(received) < len(whole):
                received += await anyio.to_thread.run_sync(theirs.recv, 1 << 20)
        assert received == whole


async def test_connection_closes_with_the_workers_end_and_ignores_later_sends() -> None:
    async with connected(FrameCollector()) as (connection, theirs):
        theirs.close()
        with anyio.fail_after(30):
            await connection.wait_closed()
        connection.send(Cancel(1))


async def test_invalid_frame_closes_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(FrameCollector()) as (connection, theirs):
        theirs.sendall(protocol.encode(Cancel(1))[:4] + b"x" * 100)
        with anyio.fail_after(30):
            await connection.wait_closed()
    assert "invalid frame" in caplog.text
