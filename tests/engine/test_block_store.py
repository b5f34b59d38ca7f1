"""The block store on a real disk: what a crash leaves, what a full disk does, what goes first."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pensieve.engine.block_store import BlockStore, Content, StoreLimits
from pensieve.files import TEMPORARY


def holding(content: bytes) -> Content:
    return Content(len(content), lambda: [content])


PLENTY = StoreLimits(cap_bytes=10**9, daily_bytes=10**9)


def written(folder: Path, limits: StoreLimits, *files: tuple[str, bytes]) -> None:
    """A store's whole life: the files are offered, and it is closed."""
    store = BlockStore(folder, limits)
    for name, content in files:
        assert store.offer(name, holding(content))
        wait_for(store)
    store.close()


def wait_for(store: BlockStore) -> None:
    """Until nothing is queued any more."""
    with store._lock:
        while store._queue:
            store._lock.wait(0.01)


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    written(tmp_path / "kv", PLENTY, ("a.kv", b"one"), ("b.kv", b"two"))
    again = BlockStore(tmp_path / "kv", PLENTY)
    assert again.has("a.kv")
    assert again.read("b.kv") == b"two"
    assert again.read("b.kv", at_most=2) == b"tw"
    assert again.nbytes == 6
    again.close()


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        written(tmp_path / "kv", PLENTY, ("a.kv", b"one"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "kv").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "kv" / "a.kv").stat().st_mode) == 0o600


def test_what_waits_to_be_written_can_be_read(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, PLENTY)
    store.offer("a.kv", holding(b"one"))
    assert store.read("a.kv") == b"one"
    assert not store.offer("a.kv", holding(b"one"))
    store.close()


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    limits = StoreLimits(cap_bytes=300, daily_bytes=10**9)
    store = BlockStore(tmp_path, limits)
    for name in ("a.kv", "b.kv", "c.kv"):
        store.offer(name, holding(bytes(100)))
        wait_for(store)
    store.read("a.kv")
    store.offer("d.kv", holding(bytes(100)))
    wait_for(store)
    assert [name for name in ("a.kv", "b.kv", "c.kv", "d.kv") if store.has(name)] == [
        "a.kv",
        "c.kv",
        "d.kv",
    ]
    store.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 300


def test_the_days_budget_is_kept(tmp_path: Path) -> None:
    now = [0.0]
    store = BlockStore(tmp_path, StoreLimits(10**9, daily_bytes=150), clock=lambda: now[0])
    assert store.offer("a.kv", holding(bytes(160)))
    wait_for(store)
    assert not store.is_writing
    assert not store.offer("b.kv", holding(b"b"))
    now[0] = 25 * 3600.0
    assert store.offer("b.kv", holding(b"b"))
    store.close()


def test_a_file_that_vanished_is_a_miss(tmp_path: Path) -> None:
    store = BlockStore(tmp_path, PLENTY)
    store.offer("a.kv", holding(b"one"))
    wait_for(store)
    (tmp_path / "a.kv").unlink()
    assert store.read("a.kv") is None
    assert not store.has("a.kv")
    store.close()


def test_what_a_crash_left_half_written_is_removed_and_never_read(tmp_path: Path) -> None:
    (tmp_path / ("a.kv" + TEMPORARY)).write_bytes(b"half")
    store = BlockStore(tmp_path, PLENTY)
    assert store.names() == []
    assert list(tmp_path.iterdir()) == []
    store.close()


WRITER = """
import sys
from pathlib import Path
from pensieve.engine.block_store import BlockStore, Content, StoreLimits
store = BlockStore(Path(sys.argv[1]), StoreLimits(10**9, 10**9))
number = 0
print("ready", flush=True)
while True:
    content = bytes([number % 251]) * 200_000
    number += store.offer(f"{number}.kv", Content(len(content), lambda content=content: [content]))
"""


@pytest.mark.parametrize("kill", range(10))
def test_a_kill_at_any_moment_leaves_only_whole_files(tmp_path: Path, kill: int) -> None:
    """Each run is killed a little later; the suite's crash test (tests/mlx) does it 200 times with real caches."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while len(list(tmp_path.glob("*.kv"))) < kill * 3:
            pass
        writer.send_signal(signal.SIGKILL)
    store = BlockStore(tmp_path, PLENTY)
    for name in store.names():
        content = store.read(name)
        assert content == bytes([int(name.removesuffix(".kv")) % 251]) * 200_000
    store.close()


def test_a_full_disk_pauses_writing_and_nothing_else(tmp_path: Path) -> None:
    """/dev/full says ENOSPC to whatever is written there; the temporary file is a link to it."""
    now = [0.0]
    store = BlockStore(tmp_path, PLENTY, clock=lambda: now[0])
    store.offer("a.kv", holding(b"one"))
    wait_for(store)
    (tmp_path / ("b.kv" + TEMPORARY)).symlink_to("/dev/full")
    assert store.offer("b.kv", holding(b"two"))
    wait_for(store)
    assert not store.has("b.kv")
    assert not store.is_writing
    assert store.read("a.kv") == b"one"
    now[0] = 61.0
    assert store.offer("b.kv", holding(b"two"))
    wait_for(store)
    assert store.read("b.kv") == b"two"
    store.close()
