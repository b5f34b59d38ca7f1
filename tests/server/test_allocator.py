"""Memory of large bodies returns to the system when they are freed."""

import sys

import pytest

from pensieve.server.run import LARGE_BYTES, M_MMAP_THRESHOLD, return_large_allocations
from tests.support.programs import run_program

PROGRAM = """
import threading
from pathlib import Path
from pensieve.server.run import return_large_allocations

return_large_allocations()
texts = []
def take():
    texts.append("x" * (31 << 20))
for _ in range(2):
    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    texts.clear()
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmRSS"].split()[0]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_texts_of_threads_return_to_the_system() -> None:
    assert int(run_program([sys.executable, "-c", PROGRAM]).stdout) < 62


def test_allocator_without_mallopt_is_not_changed() -> None:
    return_large_allocations(object())


def test_threshold_is_set_with_mallopt() -> None:
    calls: list[tuple[int, int]] = []

    class Libc:
        def mallopt(self, name: int, value: int) -> None:
            calls.append((name, value))

    return_large_allocations(Libc())
    assert calls == [(M_MMAP_THRESHOLD, LARGE_BYTES)]
