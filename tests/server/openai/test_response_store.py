"""Stored responses are continued, referred to, listed and removed, also after a restart."""

import json
import sqlite3
from pathlib import Path

import pytest

from pensieve.errors import NotFoundError, PreviousResponseNotFoundError
from pensieve.server.openai.response_store import ResponseStore, StoredResponse

pytestmark = pytest.mark.anyio


def item(item_id, text=""):
    return {"id": item_id, "type": "message", "text": text}


def response(name, previous=None, text="é\u2028"):
    return StoredResponse(
        name,
        json.dumps({"id": name}).encode(),
        previous,
        (item(f"in_{name}", text),),
        (item(f"out_{name}", text),),
    )


def ids(items):
    return [each["id"] for each in items]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


async def test_a_history_has_the_items_of_all_responses_in_order(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "responses")
    async with store.open():
        for each in (response("a"), response("b", "a"), response("x"), response("c", "b")):
            store.add(each)
        assert ids(await store.history("c")) == [
            *("in_a", "out_a", "in_b", "out_b", "in_c", "out_c"),
        ]
        assert ids(await store.history("b")) == ["in_a", "out_a", "in_b", "out_b"]
        assert ids(await store.input_items("c")) == ["in_a", "out_a", "in_b", "out_b", "in_c"]
        assert (await store.history("a"))[0] == item("in_a", "é\u2028")


async def test_responses_survive_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        store = ResponseStore(tmp_path / "responses")
        async with store.open():
            store.add(response("a" if not (tmp_path / "responses").exists() else "b", None))
    store = ResponseStore(tmp_path / "responses")
    async with store.open():
        assert await store.retrieve("a") == b'{"id": "a"}'
        assert await store.retrieve("b") == b'{"id": "b"}'


async def test_what_is_stored_is_private(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "responses")
    async with store.open():
        store.add(response("a"))
        await store.retrieve("a")
        file = tmp_path / "responses" / "responses.db"
        assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o600, 0o700]


async def test_items_are_found_by_their_ids(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "responses")
    async with store.open():
        store.add(response("a", text="old"))
        store.add(response("b"))
        store.add(StoredResponse("c", b"{}", None, (item("in_a", "new"),), ()))
        found = await store.items(["out_b", "in_a"])
        assert found == [item("out_b", "é\u2028"), item("in_a", "new")]
        with pytest.raises(NotFoundError, match=r"^Item with id 'none' not found\.$"):
            await store.items(["out_b", "none"])
        with pytest.raises(NotFoundError, match="Item with id '\ud800' not found"):
            await store.items(["\ud800"])


async def test_unknown_responses_are_not_found(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "responses")
    async with store.open():
        with pytest.raises(PreviousResponseNotFoundError, match="'none' not found"):
            await store.history("none")
        for work in (store.retrieve, store.input_items, store.delete):
            with pytest.raises(NotFoundError, match=r"^Response with id 'none' not found\.$"):
                await work("none")


async def test_a_deleted_response_is_gone_with_its_items(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "responses")
    async with store.open():
        store.add(response("a"))
        await store.delete("a")
        for work in (store.retrieve, store.input_items, store.delete):
            with pytest.raises(NotFoundError):
                await work("a")
        with pytest.raises(NotFoundError):
            await store.items(["in_a"])
        with pytest.raises(PreviousResponseNotFoundError):
            await store.history("a")


async def test_responses_are_continued_after_earlier_ones_are_deleted(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "responses")
    async with store.open():
        for each in (response("a"), response("b", "a"), response("c", "b"), response("d", "a")):
            store.add(each)
        await store.delete("a")
        await store.delete("b")
        assert ids(await store.history("c")) == [
            *("in_a", "out_a", "in_b", "out_b", "in_c", "out_c"),
        ]
        assert ids(await store.input_items("d")) == ["in_a", "out_a", "in_d"]
        assert ids(await store.items(["out_a"])) == ["out_a"]
        for work in (store.retrieve, store.input_items, store.delete):
            with pytest.raises(NotFoundError, match="Response with id 'b' not found"):
                await work("b")
        with pytest.raises(PreviousResponseNotFoundError, match="'b' not found"):
            await store.history("b")


async def test_items_of_deleted_responses_go_with_the_last_that_continues_them(
    tmp_path: Path,
) -> None:
    store = ResponseStore(tmp_path / "responses")
    async with store.open():
        for each in (response("a"), response("b", "a"), response("c", "b"), response("d", "a")):
            store.add(each)
        for name in ("a", "b", "c"):
            await store.delete(name)
        assert ids(await store.items(["in_a"])) == ["in_a"]
        for item_id in ("in_b", "out_c"):
            with pytest.raises(NotFoundError):
                await store.items([item_id])
        await store.delete("d")
        with pytest.raises(NotFoundError):
            await store.items(["in_a"])
    with sqlite3.connect(tmp_path / "responses" / "responses.db") as database:
        left = [
            database.execute(f"SELECT count(*) FROM {table}").fetchone()
            for table in ("responses", "items")
        ]
    database.close()
    assert left == [(0,), (0,)]


async def test_items_of_deleted_responses_count_until_they_are_removed(tmp_path: Path) -> None:
    text = "x" * 1000
    store = ResponseStore(tmp_path / "responses", max_bytes=7000, clock=Clock())
    async with store.open():
        store.add(response("a", text=text))
        store.add(response("b", "a"))
        await store.delete("a")
        await store.history("b")
        for name in ("x", "y", "z"):
            store.add(response(name, text=text))
        # The first of the conversation went first, and the error names it.
        with pytest.raises(PreviousResponseNotFoundError, match="'a' not found"):
            await store.history("b")
        with pytest.raises(NotFoundError, match="'a' not found"):
            await store.input_items("b")
        assert await store.retrieve("b") == b'{"id": "b"}'


async def test_the_least_recently_used_are_removed_first(tmp_path: Path) -> None:
    text = "x" * 1000
    store = ResponseStore(tmp_path / "responses", max_bytes=7000, clock=Clock())
    async with store.open():
        for each in (response("a", text=text), response("b", text=text), response("c", "a", text)):
            store.add(each)
        await store.history("c")  # uses `a`, too
        store.add(response("d", text=text))
        with pytest.raises(NotFoundError):
            await store.retrieve("b")
        assert len(await store.history("c")) == 4
        assert len(await store.history("d")) == 2


async def test_expired_responses_are_removed(tmp_path: Path) -> None:
    clock = Clock()
    store = ResponseStore(tmp_path / "responses", lifetime_s=100, clock=clock)
    async with store.open():
        store.add(response("a"))
        await store.retrieve("a")
        clock.now = 200
        store.add(response("b"))
        with pytest.raises(NotFoundError):
            await store.retrieve("a")
        await store.retrieve("b")


async def test_a_response_over_the_limit_is_not_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ResponseStore(tmp_path / "responses", max_bytes=500)
    async with store.open():
        store.add(response("a"))
        store.add(response("b", text="x" * 500))
        await store.retrieve("a")
        with pytest.raises(NotFoundError):
            await store.retrieve("b")
    assert "too large to be stored" in caplog.text


async def test_a_folder_that_cannot_be_written_loses_the_response_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "responses").write_text("in the way")
    store = ResponseStore(tmp_path / "responses")
    async with store.open():
        store.add(response("a"))
    assert "failed to store a response" in caplog.text


async def test_a_closed_store_is_empty(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path / "responses")
    store.add(response("a"))
    with pytest.raises(NotFoundError):
        await store.retrieve("a")
    assert not (tmp_path / "responses").exists()
