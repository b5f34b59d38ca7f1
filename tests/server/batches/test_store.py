"""Batches on disk: each is stored whole or not at all, and no result is lost or repeated."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pensieve.api.batch_reading import LocatedEntry, params_of
from pensieve.api.batches import BatchResultLine, Canceled, Expired, Succeeded
from pensieve.errors import NotFoundError
from pensieve.server.batches.store import Batch, BatchStore
from tests.server.batch_cases import message, received

IDS = ["a", "b", "c"]
DONE = Succeeded(message=message("line\n"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "batches"


@pytest.fixture
def store(folder: Path) -> BatchStore:
    return BatchStore(folder)


def create(store: BatchStore, **params: object) -> Batch:
    path = store.new_body()
    return store.create(path, received(path, IDS, **params), created_at=1.0, expires_at=9.0)


def add_result(store: BatchStore, batch: Batch, custom_id: str) -> None:
    (request,) = (each for each in store.pending(batch) if each.custom_id == custom_id)
    store.add_result(batch, request, DONE)


def pending_ids(store: BatchStore, batch: Batch) -> list[str]:
    return [request.custom_id for request in store.pending(batch)]


def lines(store: BatchStore, batch: Batch) -> list[str]:
    with store.results(batch) as content:
        text = b"".join(content.chunks)
    assert content.size == len(text) == batch.stored_bytes
    return text.decode().splitlines()


def line(custom_id: str, result: Succeeded | Canceled | Expired = DONE) -> str:
    return BatchResultLine(custom_id=custom_id, result=result).to_json()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_folder_is_not_created_before_first_batch(store: BatchStore, tmp_path: Path) -> None:
    assert store.list_batches() == store.load_unfinished() == []
    assert list(tmp_path.iterdir()) == []


def test_stored_batch_is_loaded_with_its_requests(store: BatchStore, folder: Path) -> None:
    batch = create(store, deep={"n": [1, "é\u2028"]})
    again = BatchStore(folder)
    assert (batch.requests, batch.stored_bytes) == (3, (folder / batch.id).stat().st_size)
    assert again.load_unfinished() == again.list_batches() == [batch] == [again.get(batch.id)]
    assert pending_ids(again, batch) == IDS
    text = again.entry(batch, again.pending(batch)[1])
    assert params_of(text) == b'{"text":"b","deep":{"n":[1,"\\u00e9\\u2028"]}}'


def test_unfinished_batches_are_loaded_oldest_first(store: BatchStore) -> None:
    batches = [create(store) for _ in range(3)]
    assert store.load_unfinished() == batches == store.list_batches()[::-1]


def test_request_with_result_is_not_pending(store: BatchStore) -> None:
    batch = create(store)
    add_result(store, batch, "b")
    assert pending_ids(store, batch) == ["a", "c"]


def test_second_result_of_a_request_is_refused(store: BatchStore) -> None:
    batch = create(store)
    request = store.pending(batch)[0]
    store.add_result(batch, request, DONE)
    with pytest.raises(NotFoundError):
        store.add_result(batch, request, DONE)
    assert store.end(batch, Expired(), 5.0).outcomes == {"succeeded": 1, "expired": 2}


def test_end_fills_missing_results_and_counts_all(store: BatchStore, folder: Path) -> None:
    other, batch = create(store), create(store)
    add_result(store, other, "a")
    add_result(store, batch, "b")
    ended = store.end(batch, Canceled(), 5.0)
    assert (ended.ended_at, ended.outcomes) == (5.0, {"succeeded": 1, "canceled": 2})
    assert lines(store, ended) == [line("b"), line("a", Canceled()), line("c", Canceled())]
    assert BatchStore(folder).load_unfinished() == [other]


def test_end_can_be_repeated_after_crash(store: BatchStore, folder: Path) -> None:
    batch = create(store)
    body = (folder / batch.id).read_bytes()
    first = store.end(batch, Expired(), 5.0)
    (folder / batch.id).write_bytes(body)
    assert store.end(batch, Canceled(), 5.0) == first
    assert len(lines(store, first)) == 3


def test_body_is_removed_when_batch_ends(store: BatchStore, folder: Path) -> None:
    batch = create(store)
    assert batch.id in names(folder)
    store.end(batch, Expired(), 5.0)
    assert batch.id not in names(folder)
    assert store.pending(batch) == []


def test_start_removes_what_belongs_to_no_unfinished_batch(
    store: BatchStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    batch, ended = create(store), create(store)
    store.end(ended, Expired(), 5.0)
    store.close()
    (folder / ended.id).write_text("killed before it was removed")
    (folder / "msgbatch_1").write_text("killed before its batch was stored")
    (folder / "msgbatch_2").mkdir()
    (folder / "msgbatch_2" / "requests.txt").write_text("of an earlier version")
    assert BatchStore(folder).load_unfinished() == [batch]
    assert {name for name in names(folder) if "msgbatch" in name} == {batch.id}
    assert "removed 3 files" in caplog.text


def test_deleted_batch_is_removed_and_its_space_used_again(store: BatchStore, folder: Path) -> None:
    sizes: list[int] = []
    for _ in range(3):
        batch = create(store)
        store.add_result(batch, store.pending(batch)[0], Succeeded(message=message("x" * 10**6)))
        store.delete(store.end(batch, Expired(), 5.0))
        sizes.append(sum(path.stat().st_size for path in folder.glob("*.db")))
    assert store.list_batches() == []
    with pytest.raises(NotFoundError):
        store.get(batch.id)
    store.close()
    assert max(sizes) < 3 * 10**6
    assert {path.name for path in folder.iterdir()} == {"batches.db", "reserve"}
    assert (folder / "batches.db").stat().st_size < 10**5


def test_results_can_be_read_while_the_batch_is_deleted(store: BatchStore) -> None:
    batch = create(store)
    long = Succeeded(message=message("x" * 10**6))
    for request in store.pending(batch):
        store.add_result(batch, request, long)
    ended = store.end(batch, Expired(), 5.0)
    with store.results(ended) as content:
        first = next(content.chunks)
        store.delete(ended)
        rest = b"".join(content.chunks)
    assert len(first) < 2 * 10**6
    assert (first + rest).decode().splitlines() == [line(custom_id, long) for custom_id in IDS]


def test_failed_creation_leaves_no_batch(store: BatchStore) -> None:
    def failing() -> Iterator[LocatedEntry]:
        yield next(received(path, IDS))
        raise OSError("no more")

    path = store.new_body()
    received(path, IDS)
    with pytest.raises(OSError, match="no more"):
        store.create(path, failing(), created_at=1.0, expires_at=9.0)
    assert store.list_batches() == []
    assert pending_ids(store, create(store)) == IDS


def test_first_cancellation_counts_and_none_after_the_end(store: BatchStore) -> None:
    batch = create(store)
    assert store.cancel(batch.id, 4.0).cancel_initiated_at == 4.0
    assert store.cancel(batch.id, 5.0).cancel_initiated_at == 4.0
    ended = store.end(create(store), Expired(), 5.0)
    assert store.cancel(ended.id, 6.0) == ended
    with pytest.raises(NotFoundError):
        store.cancel("msgbatch_unknown", 4.0)


def test_batch_files_are_private(store: BatchStore, folder: Path) -> None:
    batch = create(store)
    add_result(store, batch, "a")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    assert len(modes) == 6
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
