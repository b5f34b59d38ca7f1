"""Batches on disk: a crash at any moment loses no result and repeats none."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pensieve.api.batches import BatchResultLine, Canceled, Expired, Succeeded
from pensieve.atomic_files import TEMPORARY
from pensieve.server.batches.store import RECORD, REQUESTS, RESULTS, Batch, BatchStore
from tests.server.batch_cases import entries, message

IDS = ["a", "b", "c"]


def blank(batch_id: str = "msgbatch_1", created_at: float = 1.0) -> Batch:
    return Batch(batch_id, created_at, created_at + 9, len(IDS), stored_bytes=0)


def done(custom_id: str) -> BatchResultLine:
    return BatchResultLine(custom_id=custom_id, result=Succeeded(message=message(f"{custom_id}\n")))


def pending_ids(store: BatchStore, batch: Batch) -> list[str]:
    return [request.custom_id for request in store.pending(batch)]


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    return BatchStore(tmp_path / "state" / "batches")


def test_folder_is_not_created_before_first_batch(store: BatchStore, tmp_path: Path) -> None:
    assert store.load_all() == []
    assert list(tmp_path.iterdir()) == []


def test_stored_batch_is_loaded_with_its_requests(store: BatchStore) -> None:
    batch = store.create(blank(), entries(IDS, deep={"n": [1, "é\u2028"]}))
    assert store.load_all() == [batch]
    assert batch.stored_bytes > 0
    (first, *_) = store.pending(batch)
    assert pending_ids(store, batch) == IDS
    assert store.params(batch, first) == b'{"text":"a","deep":{"n":[1,"\\u00e9\\u2028"]}}\n'


def test_batches_are_loaded_oldest_first(store: BatchStore) -> None:
    for number in (3, 1, 2):
        store.create(blank(f"msgbatch_{number}", float(number)), entries(IDS))
    assert [batch.id for batch in store.load_all()] == ["msgbatch_1", "msgbatch_2", "msgbatch_3"]


def test_request_with_result_is_not_pending(store: BatchStore) -> None:
    batch = store.create(blank(), entries(IDS))
    store.append(batch, done("b"))
    assert pending_ids(store, batch) == ["a", "c"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_only_a_truncated_result_becomes_pending_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store = BatchStore(tmp_path_factory.mktemp("batches"))
    batch = store.create(blank(), entries(IDS))
    for custom_id in IDS:
        store.append(batch, done(custom_id))
    whole = store.results(batch).read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    store.results(batch).write_bytes(whole[:cut] + data.draw(st.sampled_from([b"", b"\0" * 9])))
    left = whole[:cut].count(b"\n")
    assert pending_ids(store, batch) == IDS[left:]
    for custom_id in IDS[left:]:
        store.append(batch, done(custom_id))
    assert store.results(batch).read_bytes() == whole


def test_end_fills_missing_results_and_counts_all(store: BatchStore) -> None:
    batch = store.create(blank(), entries(IDS))
    store.append(batch, done("b"))
    ended = store.end(batch, Canceled(), 5.0)
    assert (ended.ended_at, ended.outcomes) == (5.0, {"succeeded": 1, "canceled": 2})
    assert store.load_all() == [ended]
    lines = store.results(batch).read_text().splitlines()
    assert lines[1:] == [
        BatchResultLine(custom_id=custom_id, result=Canceled()).to_json()
        for custom_id in ("a", "c")
    ]


def test_end_can_be_repeated_after_crash(store: BatchStore, tmp_path: Path) -> None:
    batch = store.create(blank(), entries(IDS))
    record = (tmp_path / "state" / "batches" / batch.id / RECORD).read_bytes()
    requests = (tmp_path / "state" / "batches" / batch.id / REQUESTS).read_bytes()
    first = store.end(batch, Expired(), 5.0)
    (tmp_path / "state" / "batches" / batch.id / RECORD).write_bytes(record)
    (tmp_path / "state" / "batches" / batch.id / REQUESTS).write_bytes(requests)
    (again,) = store.load_all()
    assert again.ended_at is None
    assert store.end(again, Expired(), 5.0) == first


def test_requests_are_removed_when_batch_ends(store: BatchStore, tmp_path: Path) -> None:
    batch = store.create(blank(), entries(IDS))
    store.end(batch, Expired(), 5.0)
    names = {path.name for path in (tmp_path / "state" / "batches" / batch.id).iterdir()}
    assert names == {RECORD, RESULTS}


def test_partly_created_or_deleted_batch_is_removed(store: BatchStore) -> None:
    batch = store.create(blank(), entries(IDS))
    folder = store.results(batch).parent
    folder.rename(folder.with_name("msgbatch_2" + TEMPORARY))
    assert store.load_all() == []
    assert list(folder.parent.iterdir()) == []


def test_deleted_batch_is_removed(store: BatchStore) -> None:
    batch = store.create(blank(), entries(IDS))
    store.delete(batch)
    assert store.load_all() == []


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"id": "msgbatch_1"}', b"\xff"])
def test_unreadable_record_does_not_affect_others(store: BatchStore, record: bytes) -> None:
    stored = store.create(blank("msgbatch_2"), entries(IDS))
    broken = store.create(blank(), entries(IDS))
    (store.results(broken).parent / RECORD).write_bytes(record)
    assert store.load_all() == [stored]


@pytest.mark.parametrize(
    "change",
    [
        *[{"requests": None}, {"requests": -1}, {"created_at": "x"}, {"expires_at": 1e300}],
        *[{"ended_at": []}, {"outcomes": {"lost": 1}}, {"outcomes": [1]}, {"new_field": 1}],
    ],
    ids=str,
)
def test_record_of_another_version_is_not_listed_and_stays(
    store: BatchStore, change: dict[str, object]
) -> None:
    stored = store.create(blank("msgbatch_2"), entries(IDS))
    other = store.create(blank(), entries(IDS))
    record = store.results(other).parent / RECORD
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    assert store.load_all() == [stored]
    assert record.exists()


def test_failed_creation_leaves_no_files(store: BatchStore) -> None:
    def failing():
        yield entries(["a"])[0]
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        store.create(blank(), failing())
    assert store.load_all() == []


def test_save_replaces_record(store: BatchStore) -> None:
    batch = store.create(blank(), entries(IDS))
    canceling = replace(batch, cancel_initiated_at=4.0)
    store.save(canceling)
    assert store.load_all() == [canceling]


def test_batch_files_are_private(store: BatchStore, tmp_path: Path) -> None:
    batch = store.create(blank(), entries(IDS))
    store.append(batch, done("a"))
    folder = tmp_path / "state" / "batches"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    assert len(modes) == 5
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
