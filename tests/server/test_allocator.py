"""Memory of large bodies goes back to the system when they are freed."""

import subprocess
import sys

import pytest

from pensieve.server.allocator import LARGE_BYTES, M_MMAP_THRESHOLD, return_large_allocations

PROGRAM = """
import threading
from pathlib import Path
from pensieve.server.allocator import return_large_allocations

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
def test_texts_of_threads_leave_no_memory_behind() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert int(run.stdout) < 62


def test_an_allocator_without_the_setting_is_left_alone() -> None:
    return_large_allocations(object())


def test_the_threshold_is_set_where_there_is_one() -> None:
    calls: list[tuple[int, int]] = []

    class Libc:
        def mallopt(self, name: int, value: int) -> None:
            calls.append((name, value))

    return_large_allocations(Libc())
    assert calls == [(M_MMAP_THRESHOLD, LARGE_BYTES)]
