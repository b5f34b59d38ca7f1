"""Uploaded files on disk: leftovers of a crash, deletion, names that could escape the folder."""

import stat
from pathlib import Path

import pytest

from pensieve.atomic_files import TEMPORARY
from pensieve.errors import FileExpiredError, NotFoundError, StorageQuotaExceededError
from pensieve.server.files.store import EXPIRED_RETENTION_S, FileContent, FileStore, StorageLimits
from tests.server.batch_cases import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> FileStore:
    limits = StorageLimits(stored_bytes=10, files=3)
    return FileStore(tmp_path / "state" / "files", limits=limits, clock=clock)


def add(store: FileStore, content: bytes = b"x", lifetime_s: int | None = None) -> str:
    return store.add(content, "notes.txt", "text/plain", lifetime_s).id


def contents(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "state" / "files").glob("file_*")}


def test_folder_is_not_created_before_first_file(store: FileStore, tmp_path: Path) -> None:
    assert store.list_files() == []
    assert list(tmp_path.iterdir()) == []


def test_stored_file_is_loaded(store: FileStore) -> None:
    file_id = add(store, "\ufeffé\r\n".encode())
    file = store.get(file_id)
    assert (file.filename, file.mime_type, file.size_bytes) == ("notes.txt", "text/plain", 7)
    assert store.content(file).read_bytes() == "\ufeffé\r\n".encode()
    assert store.read(file_id) == FileContent("text/plain", "\ufeffé\r\n".encode())


def test_newest_file_is_listed_first(store: FileStore, clock: Clock) -> None:
    file_ids = []
    for _ in range(3):
        file_ids.append(add(store))
        clock.now += 1
    assert [file.id for file in store.list_files()] == file_ids[::-1]


def test_stored_files_are_private(store: FileStore, tmp_path: Path) -> None:
    add(store)
    folder = tmp_path / "state" / "files"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_deleted_file_is_removed(store: FileStore, tmp_path: Path) -> None:
    file_id = add(store)
    store.delete(file_id)
    for ask in (store.get, store.read, store.delete):
        with pytest.raises(NotFoundError, match=f"File not found: {file_id}"):
            ask(file_id)
    assert contents(tmp_path) == set()


def test_expired_file_is_reported_then_removed(store: FileStore, clock: Clock) -> None:
    file_id = add(store, b"0123456789", lifetime_s=60)
    clock.now += 60
    with pytest.raises(FileExpiredError):
        store.read(file_id)
    other = add(store, b"0123456789")
    assert not store.content(store.get(other)).with_name(file_id).exists()
    assert store.get(file_id).size_bytes == 10
    with pytest.raises(FileExpiredError):
        store.read(file_id)
    clock.now += EXPIRED_RETENTION_S + 1
    store.delete(other)
    add(store)
    with pytest.raises(NotFoundError):
        store.get(file_id)


def test_storage_limits_are_enforced(store: FileStore) -> None:
    first = add(store, b"0123456789")
    with pytest.raises(StorageQuotaExceededError):
        add(store)
    store.delete(first)
    for _ in range(3):
        add(store)
    with pytest.raises(StorageQuotaExceededError):
        add(store)


def test_leftovers_of_a_crash_are_removed(store: FileStore, tmp_path: Path) -> None:
    stored = add(store)
    folder = tmp_path / "state" / "files"
    (folder / "file_01content").write_bytes(b"no metadata")
    (folder / f"file_02{TEMPORARY}").write_bytes(b"half")
    (folder / "file_03.json").write_bytes(b"{}")  # of an earlier version
    assert [file.id for file in store.list_files()] == [stored]
    other = add(store)
    assert contents(tmp_path) == {stored, other}


@pytest.mark.parametrize(
    "file_id",
    ["../secret", "file_../secret", "secret", "", "file_", "file_a/b", "file_a\0", "file_é"],
)
def test_invalid_id_never_reaches_the_disk(store: FileStore, tmp_path: Path, file_id: str) -> None:
    add(store)
    (tmp_path / "state" / "secret").write_text("{}")
    for ask in (store.get, store.read, store.delete):
        with pytest.raises(NotFoundError):
            ask(file_id)
    assert (tmp_path / "state" / "secret").exists()
