"""The folders of several workers of one machine."""

from pathlib import Path

from pensieve.engine.disk.block_store import BlockStore, PendingWrite, StoreLimits
from pensieve.engine.disk.shares import adopt_unused, share
from pensieve.engine.disk.write_quota import DailyWriteQuota

MODEL = f"model-{'a' * 32}"


def opened(folder: Path, cap_bytes: int = 1000) -> BlockStore:
    folder.mkdir(parents=True, exist_ok=True)
    quota = DailyWriteQuota(folder / "written.json")
    return BlockStore(folder / MODEL, StoreLimits(cap_bytes, 10_000), quota)


def write(store: BlockStore, *names: str) -> None:
    for name in names:
        assert store.enqueue(name, PendingWrite(100, lambda: [b"x" * 100]))
    store.close()


def test_first_worker_has_the_folder_of_a_lone_one_and_others_have_their_own(
    tmp_path: Path,
) -> None:
    assert share(tmp_path, 1) == tmp_path
    assert share(tmp_path, 2) != share(tmp_path, 3)


def test_workers_neither_count_nor_delete_each_others_files(tmp_path: Path) -> None:
    stores = [opened(share(tmp_path, number), cap_bytes=300) for number in (1, 2)]
    (tmp_path / MODEL / "half written.tmp").touch()
    for store in stores:
        write(store, "a.kv", "b.kv", "c.kv", "d.kv")
    again = [opened(share(tmp_path, number), cap_bytes=300) for number in (1, 2)]
    assert [store.nbytes for store in again] == [300, 300]
    assert [store.written_today for store in again] == [400, 400]
    for store in again:
        store.close()


def test_workers_find_their_files_after_a_restart_with_more_of_them(tmp_path: Path) -> None:
    write(opened(tmp_path), "old.kv")
    adopt_unused(tmp_path, 2)
    first, second = (opened(share(tmp_path, number)) for number in (1, 2))
    assert (first.names(), second.names()) == (["old.kv"], [])
    write(second, "new.kv")
    first.close()
    adopt_unused(tmp_path, 2)
    again = opened(share(tmp_path, 2))
    assert again.names() == ["new.kv"]
    again.close()


def test_first_worker_takes_over_the_files_of_those_that_no_longer_run(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write(opened(share(tmp_path, number)), "both.kv", f"{number}.kv")
    adopt_unused(tmp_path, 1)
    store = opened(tmp_path)
    assert set(store.names()) == {"both.kv", "1.kv", "2.kv", "3.kv"}
    assert store.nbytes == 400
    assert not share(tmp_path, 2).exists()
    assert not share(tmp_path, 3).exists()
    store.close()


def test_other_folders_and_links_are_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / MODEL).mkdir(parents=True)
    (elsewhere / MODEL / "a.kv").touch()
    root = tmp_path / "prefixes"
    (root / f"worker-{'1' * 32}").mkdir(parents=True)
    (root / "worker-2").symlink_to(elsewhere)
    adopt_unused(root, 1)
    assert (elsewhere / MODEL / "a.kv").exists()
    assert {each.name for each in root.iterdir()} == {"worker-2", f"worker-{'1' * 32}"}


def test_missing_folder_needs_no_adoption(tmp_path: Path) -> None:
    adopt_unused(tmp_path / "none", 2)
    assert not (tmp_path / "none").exists()
