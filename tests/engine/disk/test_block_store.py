"""Tests the block store on a real disk: crashes, full disks, eviction order."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pensieve.atomic_files import TEMPORARY
from pensieve.engine.disk.block_store import BlockStore, PendingWrite, StoreLimits, default_limits
from pensieve.engine.disk.write_quota import DailyWriteQuota


def pending_write(content: bytes) -> PendingWrite:
    return PendingWrite(len(content), lambda: [content])


PLENTY = StoreLimits(cap_bytes=10**9, daily_bytes=10**9)
OURS = f"llama-{1:032x}"
STALE = f"llama-{2:032x}"
OTHER = f"phi-{3:032x}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / OURS


def store_in(
    folder: Path, limits: StoreLimits = PLENTY, clock: Callable[[], float] = time.monotonic
) -> BlockStore:
    return BlockStore(folder, limits, DailyWriteQuota(folder.parent / "written.json", clock), clock)


def write_files(folder: Path, limits: StoreLimits, *files: tuple[str, bytes]) -> None:
    store = store_in(folder, limits)
    for name, content in files:
        assert store.enqueue(name, pending_write(content))
        wait_for(store)
    store.close()


def wait_for(store: BlockStore) -> None:
    with store._lock:
        while store._queue:
            store._lock.wait(0.01)


def test_written_files_exist_after_a_restart(folder: Path) -> None:
    write_files(folder, PLENTY, ("a.kv", b"one"), ("b.kv", b"two"))
    again = store_in(folder)
    assert again.has("a.kv")
    assert again.read("b.kv", 10**6) == b"two"
    assert again.head("b.kv", 2) == b"tw"
    assert again.nbytes == 6
    again.close()


def test_files_are_private_under_any_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        write_files(folder, PLENTY, ("a.kv", b"one"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder).stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "a.kv").stat().st_mode) == 0o600


def test_queued_file_can_be_read(folder: Path) -> None:
    store = store_in(folder)
    store.enqueue("a.kv", pending_write(b"one"))
    assert store.read("a.kv", 100) == b"one"
    assert not store.enqueue("a.kv", pending_write(b"one"))
    store.close()


def test_least_recently_used_files_are_evicted_at_the_cap(folder: Path) -> None:
    limits = StoreLimits(cap_bytes=300, daily_bytes=10**9)
    store = store_in(folder, limits)
    for name in ("a.kv", "b.kv", "c.kv"):
        store.enqueue(name, pending_write(bytes(100)))
        wait_for(store)
    store.read("b.kv", 100)
    store.mark_used("a.kv")
    store.enqueue("d.kv", pending_write(bytes(100)))
    wait_for(store)
    assert [name for name in ("a.kv", "b.kv", "c.kv", "d.kv") if store.has(name)] == [
        "a.kv",
        "c.kv",
        "d.kv",
    ]
    store.close()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 300


def test_reading_a_files_head_does_not_delay_its_eviction(folder: Path) -> None:
    store = store_in(folder, StoreLimits(cap_bytes=200, daily_bytes=10**9))
    for name in ("a.kv", "b.kv", "c.kv"):
        assert store.head("a.kv", 10) in {None, bytes(10)}
        store.enqueue(name, pending_write(bytes(100)))
        wait_for(store)
    assert store.names() == ["b.kv", "c.kv"]
    store.close()


def make_files(folder: Path, **used: int) -> None:
    """Create files of 100 bytes by time of last use."""
    folder.mkdir()
    for name, used_s in used.items():
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (used_s, used_s))


def test_models_share_one_cap_and_stale_files_are_evicted_first(folder: Path) -> None:
    others = folder.parent
    make_files(others / OTHER, other=1)
    make_files(folder, mine=2)
    make_files(others / STALE, stale=3)
    make_files(others / "answers", words=0)
    store = store_in(folder, StoreLimits(cap_bytes=350, daily_bytes=10**9))
    assert store.nbytes == 300
    store.enqueue("a.kv", pending_write(bytes(100)))
    wait_for(store)
    assert not (others / STALE).exists()
    assert (others / OTHER / "other").exists()
    store.enqueue("b.kv", pending_write(bytes(100)))
    wait_for(store)
    assert store.names() == ["mine", "a.kv", "b.kv"]
    assert not (others / OTHER).exists()
    assert (others / "answers" / "words").exists()
    store.close()


def test_smaller_cap_applies_at_the_next_start(folder: Path) -> None:
    make_files(folder, a=1, c=3, b=2)
    store = store_in(folder, StoreLimits(cap_bytes=150, daily_bytes=10**9))
    assert store.names() == ["c"]
    assert not store.enqueue("d.kv", pending_write(bytes(151)))
    store.close()
    assert not store_in(folder, StoreLimits(cap_bytes=0, daily_bytes=10**9)).is_writing
    assert list(folder.iterdir()) == []


def test_daily_quota_stops_writing_across_restarts(folder: Path) -> None:
    now = [0.0]
    store = store_in(folder, StoreLimits(10**9, daily_bytes=150), lambda: now[0])
    assert store.enqueue("a.kv", pending_write(bytes(160)))
    wait_for(store)
    assert not store.is_writing
    assert not store.enqueue("b.kv", pending_write(b"b"))
    store.close()
    again = store_in(folder, StoreLimits(10**9, daily_bytes=150), lambda: now[0])
    assert again.written_today == 160
    assert not again.enqueue("b.kv", pending_write(b"b"))
    now[0] = 25 * 3600.0
    assert again.enqueue("b.kv", pending_write(b"b"))
    again.close()


@pytest.mark.parametrize(
    "content",
    [
        *[b"", b"{", b"[1]", b'{"a": "b"}', b"\xff", b'{"1": -1}', b'{"-1": 1}', b'{"1": 1.5}'],
        *[b"[" * 100_000, b'{"1": 1%s}' % (b"0" * 400), b'{"1": 1%s}' % (b"0" * 5000)],
    ],
    ids=lambda content: repr(content[:12]),
)
def test_invalid_quota_file_counts_as_empty(folder: Path, content: bytes) -> None:
    (folder.parent / "written.json").write_bytes(content)
    store = store_in(folder)
    assert store.written_today == 0
    store.close()


def test_setting_the_clock_back_does_not_use_up_the_quota(folder: Path) -> None:
    now = [10**9 + 0.0]
    store = store_in(folder, PLENTY, lambda: now[0])
    store.enqueue("a.kv", pending_write(bytes(160)))
    wait_for(store)
    now[0] = 10**6
    assert store.written_today == 0
    store.close()


def test_deleted_file_is_a_miss(folder: Path) -> None:
    store = store_in(folder)
    store.enqueue("a.kv", pending_write(b"one"))
    wait_for(store)
    (folder / "a.kv").unlink()
    assert store.read("a.kv", 100) is None
    assert not store.has("a.kv")
    store.close()


def test_temporary_files_of_a_crash_are_removed(folder: Path) -> None:
    folder.mkdir()
    (folder / ("a.kv" + TEMPORARY)).write_bytes(b"half")
    store = store_in(folder)
    assert store.names() == []
    assert list(folder.iterdir()) == []
    store.close()


WRITER = """
import sys
from pathlib import Path
from pensieve.engine.disk.block_store import BlockStore, PendingWrite, StoreLimits, default_limits
from pensieve.engine.disk.write_quota import DailyWriteQuota
folder = Path(sys.argv[1])
quota = DailyWriteQuota(folder.parent / "written.json")
store = BlockStore(folder, StoreLimits(10**9, 10**9), quota)
number = 0
print("ready", flush=True)
while True:
    content = bytes([number % 251]) * 200_000
    write = PendingWrite(len(content), lambda content=content: [content])
    number += store.enqueue(f"{number}.kv", write)
"""


@pytest.mark.parametrize("kill", range(10))
def test_kill_while_writing_leaves_only_whole_files(folder: Path, kill: int) -> None:
    """Each run is killed a little later. The crash test in tests/mlx does it 200 times with real
    caches.
    """
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        while len(list(folder.glob("*.kv"))) < kill * 3:
            pass
        writer.send_signal(signal.SIGKILL)
    store = store_in(folder)
    for name in store.names():
        content = store.read(name, 10**6)
        assert content == bytes([int(name.removesuffix(".kv")) % 251]) * 200_000
    store.close()


def full_disk() -> list[bytes]:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_pauses_writing_only(folder: Path) -> None:
    now = [0.0]
    store = store_in(folder, clock=lambda: now[0])
    store.enqueue("a.kv", pending_write(b"one"))
    wait_for(store)
    assert store.enqueue("b.kv", PendingWrite(3, full_disk))
    wait_for(store)
    assert not store.has("b.kv")
    assert not store.is_writing
    assert store.read("a.kv", 100) == b"one"
    now[0] = 61.0
    assert store.enqueue("b.kv", pending_write(b"two"))
    wait_for(store)
    assert store.read("b.kv", 100) == b"two"
    store.close()


@pytest.mark.parametrize(
    ("platform", "free_gb", "limits"),
    [
        ("darwin", 500, StoreLimits(10 * 10**9, 10 * 10**9)),
        ("darwin", 60, StoreLimits(3 * 10**9, 10 * 10**9)),
        ("linux", 500, StoreLimits(20 * 10**9, 50 * 10**9)),
        ("linux", 60, StoreLimits(6 * 10**9, 50 * 10**9)),
    ],
)
def test_macos_limits_are_lower_than_linux_limits(
    platform: str, free_gb: int, limits: StoreLimits
) -> None:
    assert default_limits(free_gb * 10**9, platform) == limits
