"""The front end's end of a worker's socket, over a real one."""

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


class Heard:
    """Takes frames, and tells when there are so many."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self._more = anyio.Event()

    def take(self, frame: Frame) -> None:
        self.frames.append(frame)
        self._more.set()

    async def first(self, count: int) -> list[Frame]:
        with anyio.fail_after(30):
            while len(self.frames) < count:
                self._more = anyio.Event()
                await self._more.wait()
        return self.frames


@asynccontextmanager
async def linked(heard: Heard) -> AsyncGenerator[tuple[WorkerConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with theirs:
        link = await WorkerConnection.over(ours, heard.take)
        try:
            yield link, theirs
        finally:
            link.close()
            await link.wait_closed()


def send_in_pieces(connection: socket.socket, stream: bytes, size: int) -> None:
    for start in range(0, len(stream), size):
        connection.sendall(stream[start : start + size])


async def test_frames_come_whole_however_their_bytes_come() -> None:
    stream = b"".join(map(protocol.encode, STEPS))
    for size in (1, 3, 7, len(stream)):
        heard = Heard()
        async with linked(heard) as (_, theirs):
            await anyio.to_thread.run_sync(send_in_pieces, theirs, stream, size)
            assert await heard.first(len(STEPS)) == STEPS


async def test_sending_waits_for_nobody_and_loses_nothing() -> None:
    many = [Cancel(key) for key in range(100_000)]
    whole = b"".join(map(protocol.encode, many))
    async with linked(Heard()) as (link, theirs):
        for frame in many:
            link.send(frame)
        got = b""
        with anyio.fail_after(30):
            while len(got) < len(whole):
                got += await anyio.to_thread.run_sync(theirs.recv, 1 << 20)
        assert got == whole


async def test_it_is_closed_when_the_worker_s_end_is_and_takes_frames_still() -> None:
    async with linked(Heard()) as (link, theirs):
        theirs.close()
        with anyio.fail_after(30):
            await link.wait_closed()
        link.send(Cancel(1))


async def test_what_is_no_frame_closes_it(caplog: pytest.LogCaptureFixture) -> None:
    async with linked(Heard()) as (link, theirs):
        theirs.sendall(protocol.encode(Cancel(1))[:4] + b"x" * 100)
        with anyio.fail_after(30):
            await link.wait_closed()
    assert "what is no frame" in caplog.text
