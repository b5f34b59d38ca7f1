"""Stores responses and their items, so that later requests continue them or refer to their items.

A response stores only what is new in it, and names the one before. So of a deleted response the
items stay as long as a stored one continues it: they are a part of that one's input. The least
recently used are removed first; the responses that a continued one continues count as used with it.
One thread reads and writes, so what was added is found, although `add` does not wait. Best effort:
on a full disk a response is not stored, and a client that continues it sends everything again.
"""

import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import anyio.to_thread

from pensieve.errors import NotFoundError, PreviousResponseNotFoundError, RequestError
from pensieve.openai.responses.request import JsonObject
from pensieve.server.database import Connection, Database, remove_owner, set_owner
from pensieve.worker_threads import run_disk_io

_log = logging.getLogger("pensieve.server")

_T = TypeVar("_T")

MAX_BYTES = 256 * 1024 * 1024
# As long as OpenAI stores them.
LIFETIME_S = 30 * 24 * 3600.0

_SCHEMA = """
CREATE TABLE responses (
    id TEXT PRIMARY KEY,
    previous_id TEXT,
    used_at REAL NOT NULL,
    size_bytes INTEGER NOT NULL,
    body BLOB NOT NULL -- empty: deleted, but a stored response continues it
) STRICT;
CREATE INDEX responses_by_use ON responses (used_at);
CREATE INDEX responses_by_previous ON responses (previous_id);
CREATE TABLE items (
    number INTEGER PRIMARY KEY,
    response_id TEXT NOT NULL,
    is_output INTEGER NOT NULL,
    id TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX items_of_response ON items (response_id);
CREATE INDEX items_by_id ON items (id);
"""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    id: str
    body: bytes  # as sent to the client
    previous_id: str | None
    input: tuple[JsonObject, ...]  # items with ids, without those of earlier responses
    output: tuple[JsonObject, ...]
    owner: str = ""  # name of the key; to other ones the response does not exist


class ResponseStore:
    """Owns the database while it is `open`, and the thread that uses it. Closed, it is empty."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = MAX_BYTES,
        lifetime_s: float = LIFETIME_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = Database(folder, _SCHEMA, is_durable=False)
        self._max_bytes = max_bytes
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._thread: ThreadPoolExecutor | None = None

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        thread = ThreadPoolExecutor(1, thread_name_prefix="responses")
        self._thread = thread
        try:
            yield
        finally:
            self._thread = None
            thread.submit(self._database.close)
            await anyio.to_thread.run_sync(thread.shutdown)

    def add(self, response: StoredResponse) -> None:
        """Queue the response's write. Does not block."""
        if self._thread is not None:
            self._thread.submit(self._add, response)

    async def history(self, response_id: str, owner: str = "") -> list[JsonObject]:
        """Return all items of the conversation that the response ends, and mark it as used.

        Raises `PreviousResponseNotFoundError` with the id that is missing: this one or an earlier.
        """
        return await self._items_of(
            response_id, lambda: self._history(response_id, owner), PreviousResponseNotFoundError
        )

    async def items(self, item_ids: Sequence[str], owner: str = "") -> list[JsonObject]:
        """Return the items with these ids. Raises `NotFoundError`."""
        found = await self._run(lambda: self._items(item_ids, owner)) or {}
        missing = next((item_id for item_id in item_ids if item_id not in found), None)
        if missing is not None:
            raise NotFoundError(f"Item with id '{missing}' not found.")
        return [found[item_id] for item_id in item_ids]

    async def retrieve(self, response_id: str, owner: str = "") -> bytes:
        """Return a response's body. Raises `NotFoundError`."""
        if body := await self._run(lambda: self._body(response_id, owner)):
            return body
        raise _not_found(response_id)

    async def input_items(self, response_id: str, owner: str = "") -> list[JsonObject]:
        """Return all items that the response answers, the oldest first. Raises `NotFoundError`."""
        return await self._items_of(
            response_id,
            lambda: self._chain_items(response_id, owner, with_output=False),
            _not_found,
        )

    async def delete(self, response_id: str, owner: str = "") -> None:
        """Raises `NotFoundError`."""
        if not await self._run(lambda: self._delete(response_id, owner)):
            raise _not_found(response_id)

    async def _items_of(
        self,
        response_id: str,
        read: Callable[[], list[JsonObject]],
        error_of: Callable[[str], RequestError],
    ) -> list[JsonObject]:
        try:
            items = await self._run(read)
        except _MissingError as error:
            raise error_of(error.response_id) from None
        if items is None:
            raise error_of(response_id)
        return items

    async def _run(self, work: Callable[[], _T]) -> _T | None:
        thread = self._thread
        if thread is None:
            return None
        return await run_disk_io(lambda: thread.submit(work).result())

    # The following run on the thread.

    def _add(self, response: StoredResponse) -> None:
        rows = [
            (response.id, is_output, item["id"], json.dumps(item).encode())
            for is_output, items in ((0, response.input), (1, response.output))
            for item in items
        ]
        size = len(response.body) + sum(len(body) for *_, body in rows)
        if size > self._max_bytes:
            _log.warning("a response of %d bytes is too large to be stored", size)
            return
        row = (response.id, response.previous_id, self._clock(), size, response.body)
        try:
            with self._database.write() as connection:
                self._evict_for(connection, size)
                connection.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?)", row)
                set_owner(connection, response.id, response.owner)
                connection.executemany(
                    "INSERT INTO items (response_id, is_output, id, body) VALUES (?, ?, ?, ?)", rows
                )
        except OSError as error:
            _log.warning("failed to store a response, it cannot be continued: %s", error)

    def _evict_for(self, connection: Connection, size: int) -> None:
        total: float = connection.execute("SELECT total(size_bytes) FROM responses").fetchone()[0]
        oldest = connection.execute(
            "SELECT id, size_bytes, used_at FROM responses ORDER BY used_at, rowid"
        ).fetchall()
        expired_at = self._clock() - self._lifetime_s
        for response_id, its_size, used_at in oldest:
            if total + size <= self._max_bytes and used_at >= expired_at:
                return
            _remove(connection, response_id)
            total -= its_size

    def _history(self, response_id: str, owner: str) -> list[JsonObject]:
        items = self._chain_items(response_id, owner, with_output=True)
        with self._database.write() as connection:
            used = [(self._clock(), each) for each in _chain(connection, response_id, owner)]
            connection.executemany("UPDATE responses SET used_at = ? WHERE id = ?", used)
        return items

    def _chain_items(self, response_id: str, owner: str, *, with_output: bool) -> list[JsonObject]:
        """Return items of the conversation. Raises `_MissingError`.

        with_output: those of the response itself as well.
        """
        query = "SELECT body FROM items WHERE response_id = ? AND is_output <= ? ORDER BY number"
        with self._database.read() as connection:
            return [
                _decoded(body)
                for each in _chain(connection, response_id, owner)
                for (body,) in connection.execute(query, (each, with_output or each != response_id))
            ]

    def _items(self, item_ids: Sequence[str], owner: str) -> dict[str, JsonObject]:
        # Of several with one id, which clients may send, the last one. One query: ten thousands
        # would keep the interpreter lock from all other requests for seconds.
        query = """
            SELECT items.id, body, max(number) FROM items
            LEFT JOIN owners ON owners.id = response_id
            WHERE items.id IN (SELECT value FROM json_each(?)) AND coalesce(owner, '') = ?
            GROUP BY items.id
        """
        with self._database.read() as connection:
            rows = connection.execute(query, (json.dumps(item_ids), owner)).fetchall()
        return {item_id: _decoded(body) for item_id, body, _ in rows}

    def _body(self, response_id: str, owner: str) -> bytes | None:
        query = """
            SELECT body FROM responses LEFT JOIN owners USING (id)
            WHERE id = ? AND coalesce(owner, '') = ?
        """
        with self._database.read() as connection:
            row = connection.execute(query, (response_id, owner)).fetchone()
        return row and row[0]

    def _delete(self, response_id: str, owner: str) -> bool:
        if not self._body(response_id, owner):
            return False
        empty = (
            "UPDATE responses SET size_bytes = size_bytes - length(body), body = x'' WHERE id = ?"
        )
        with self._database.write() as connection:
            connection.execute(empty, (response_id,))
            _remove_unneeded(connection, response_id)
        return True


class _MissingError(Exception):
    """A response is not stored, or no longer."""

    def __init__(self, response_id: str) -> None:
        super().__init__(response_id)
        self.response_id = response_id


def _chain(connection: Connection, response_id: str, owner: str) -> list[str]:
    """Return the ids of the owner's responses of a conversation up to this one, the first one
    first.

    Only the earlier ones may be deleted. Raises `_MissingError`.
    """
    query = """
        SELECT previous_id, length(body) FROM responses LEFT JOIN owners USING (id)
        WHERE id = ? AND coalesce(owner, '') = ?
    """
    chain: list[str] = []
    each: str | None = response_id
    while each is not None:
        row = connection.execute(query, (each, owner)).fetchone()
        if row is None or not (row[1] or chain):
            raise _MissingError(each)
        chain.append(each)
        each = row[0]
    return chain[::-1]


def _remove_unneeded(connection: Connection, response_id: str | None) -> None:
    """Remove a deleted response that none continues, and those before it likewise."""
    query = """
        SELECT previous_id FROM responses WHERE id = ?1 AND length(body) = 0
        AND NOT EXISTS (SELECT 1 FROM responses WHERE previous_id = ?1)
    """
    while row := connection.execute(query, (response_id,)).fetchone():
        _remove(connection, cast("str", response_id))
        response_id = row[0]


def _remove(connection: Connection, response_id: str) -> None:
    connection.execute("DELETE FROM items WHERE response_id = ?", (response_id,))
    connection.execute("DELETE FROM responses WHERE id = ?", (response_id,))
    remove_owner(connection, response_id)


def _decoded(body: bytes) -> JsonObject:
    return cast("JsonObject", json.loads(body))


def _not_found(response_id: str) -> NotFoundError:
    return NotFoundError(f"Response with id '{response_id}' not found.")
