"""The limits of a decoding process."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from pensieve.isolation import python
from pensieve.media.confinement import watch_memory

CLOSED = """
import os, socket
from pensieve.media.confinement import close_doors
close_doors()
for act in (lambda: open("/dev/null"), socket.socket, os.pipe):
    try:
        act()
    except OSError as error:
        os.write(1, b"%d " % error.errno)
    else:
        os.write(1, b"opened ")
"""
GREEDY = """
from pensieve.media.confinement import Limits, limit_work
limit_work(Limits(memory_bytes=100 << 20))
kept = bytearray(10 << 20)
print("little", flush=True)
kept = bytearray(200 << 20)
print("much")
"""
BUSY = """
from pensieve.media.confinement import Limits, limit_work
limit_work(Limits(cpu_s=1))
while True:
    pass
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = python("-c", code)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nothing_is_opened_after_the_doors_are_closed() -> None:
    done = run(CLOSED)
    assert (done.stdout, done.returncode) == ("24 24 24 ", 0)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not enforce it")
def test_more_memory_than_allowed_is_not_given() -> None:
    done = run(GREEDY)
    assert done.stdout == "little\n"
    assert "MemoryError" in done.stderr


def test_a_process_ends_after_its_time() -> None:
    assert run(BUSY).returncode < 0


def test_watched_memory_ends_the_process_once_it_is_too_much() -> None:
    peaks: Iterator[int] = iter([5, 10, 11])
    ended: list[int] = []
    watch_memory(10, lambda: next(peaks), ended.append).join()
    assert ended == [1]
    assert list(peaks) == []
