"""The connection of a worker on another machine: two pipes, read by a thread."""

import os
import threading
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest

from pensieve.engine.generation import ResourceLimits
from pensieve.engine.protocol import Cancel, Load, encode
from pensieve.engine.worker.front_end import FrontEnd, FrontEndGoneError
from pensieve.hosts.worker_process import Pipes, localized

TIMEOUT_S = 10.0


@dataclass
class OtherEnd:
    """The front end's ends of the two pipes, and whether the worker noticed the end."""

    to_worker: int
    from_worker: int
    of_worker: tuple[int, int]
    has_ended: threading.Event = field(default_factory=threading.Event)

    def connect(self, silence_s: float = TIMEOUT_S) -> Pipes:
        return Pipes(*self.of_worker, self.has_ended.set, silence_s)

    def close(self) -> None:
        os.close(self.to_worker)
        self.to_worker = -1

    def stop_reading(self) -> None:
        os.close(self.from_worker)
        self.from_worker = -1


@pytest.fixture
def other_end() -> Generator[OtherEnd]:
    into, to_worker = os.pipe()
    from_worker, out = os.pipe()
    end = OtherEnd(to_worker, from_worker, (into, out))
    yield end
    if end.to_worker >= 0:
        end.close()
    # The thread reads until the end.
    assert end.has_ended.wait(TIMEOUT_S)
    if end.from_worker >= 0:
        end.stop_reading()
    os.close(into)
    os.close(out)


def test_frames_arrive_and_leave(other_end: OtherEnd) -> None:
    front_end = FrontEnd(other_end.connect())
    os.write(other_end.to_worker, encode(Cancel(1)) + encode(Cancel(2))[:3])
    assert front_end.receive(None) == [Cancel(1)]
    assert front_end.receive(0.0) == []
    os.write(other_end.to_worker, encode(Cancel(2))[3:])
    assert front_end.receive(None) == [Cancel(2)]
    front_end.send(Cancel(3))
    assert os.read(other_end.from_worker, 100) == encode(Cancel(3))


def test_more_than_a_read_is_received_in_parts(other_end: OtherEnd) -> None:
    connection = other_end.connect()
    os.write(other_end.to_worker, b"abcde")
    parts = [connection.recv(2)]
    while len(b"".join(parts)) < 5:
        parts.append(connection.recv(2))
    assert b"".join(parts) == b"abcde"


def test_end_is_noticed_while_nothing_is_received(other_end: OtherEnd) -> None:
    front_end = FrontEnd(other_end.connect())
    os.write(other_end.to_worker, encode(Cancel(1)))
    other_end.close()
    assert other_end.has_ended.wait(TIMEOUT_S)
    assert front_end.receive(None) == [Cancel(1)]
    for _ in range(2):
        with pytest.raises(FrontEndGoneError):
            front_end.receive(None)


def test_silence_is_the_end(other_end: OtherEnd) -> None:
    front_end = FrontEnd(other_end.connect(silence_s=0.01))
    with pytest.raises(FrontEndGoneError):
        front_end.receive(None)
    assert other_end.has_ended.wait(TIMEOUT_S)


def test_a_reader_that_is_gone_ends_the_worker_at_its_next_frame(other_end: OtherEnd) -> None:
    front_end = FrontEnd(other_end.connect())
    other_end.stop_reading()
    with pytest.raises(FrontEndGoneError):
        front_end.send(Cancel(1))


def test_folders_and_limits_are_this_machines() -> None:
    load = Load("/there/model", "gpu", "/there/prefixes", ResourceLimits(1), "salt")
    changes = {
        "model_folder": "/here/model",
        "prefix_folder": "/here/prefixes",
        "device": "cpu",
        "limits": {"memory_limit_bytes": 2, "kv_bits": 8},
    }
    found = localized(load, changes)
    expected = ResourceLimits(memory_limit_bytes=2, kv_bits=8)
    assert found == Load("/here/model", "cpu", "/here/prefixes", expected, "salt")
