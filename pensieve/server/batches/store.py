"""Stores message batches: their requests and the results so far.

A request is a row of `requests` until its result is a row of `results`. The params of requests stay
in the body that the client sent: a file named like the batch, which exists from before the batch
does until it has ended. So a crash leaves at most a body without an open batch, which the next
start removes. All calls block, so the registry makes them in worker threads.
"""

import json
import logging
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pensieve.api.base import new_id
from pensieve.api.batch_reading import LocatedEntry
from pensieve.api.batches import BatchResult, BatchResultLine
from pensieve.atomic_files import sync_path
from pensieve.errors import NotFoundError
from pensieve.server.database import Database, remove_owner, set_owner
from pensieve.server.http.responses import Content, in_chunks

_log = logging.getLogger("pensieve.server")

_SCHEMA = """
CREATE TABLE batches (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    requests INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    outcomes TEXT NOT NULL,
    cancel_initiated_at REAL,
    ended_at REAL
) STRICT;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL,
    custom_id TEXT NOT NULL,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL
) STRICT;
CREATE TABLE results (
    number INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    line BLOB NOT NULL
) STRICT;
CREATE INDEX requests_of_batch ON requests (batch);
CREATE INDEX results_of_batch ON results (batch);
"""
_ADD_RESULT = "INSERT INTO results (batch, outcome, line) VALUES (?, ?, ?)"
_LIST = """
SELECT batches.*, coalesce(owner, '') FROM batches LEFT JOIN owners USING (id)
ORDER BY number DESC
"""
_GET = """
SELECT batches.*, coalesce(owner, '') FROM batches LEFT JOIN owners USING (id) WHERE id = ?
"""
_ID = "msgbatch"


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch's record. Times are Unix seconds."""

    number: int  # its key in the database; a deleted batch's may be used again
    id: str
    created_at: float
    expires_at: float
    requests: int
    stored_bytes: int  # of the body, then of the results
    outcomes: dict[str, int]  # how many requests ended with each, once the batch has ended
    cancel_initiated_at: float | None = None
    ended_at: float | None = None
    owner: str = ""  # name of the key


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request without a result, and the position of its entry in the body."""

    number: int
    custom_id: str
    start: int
    size: int


class BatchStore:
    def __init__(self, folder: Path) -> None:
        self._database = Database(folder, _SCHEMA)

    def close(self) -> None:
        self._database.close()

    def new_body(self) -> Path:
        """Return the path for the body of a new batch. Its folder may not exist yet."""
        return self._database.folder / new_id(_ID)

    def create(
        self,
        body: Path,
        entries: Iterable[LocatedEntry],
        *,
        created_at: float,
        expires_at: float,
        owner: str = "",
    ) -> Batch:
        """Store a new batch, completely or not at all, and with it the body at `new_body`.

        Raises OSError, and what `entries` raise.
        """
        for path in (body, body.parent):
            sync_path(path)
        values = (body.name, created_at, expires_at, 0, body.stat().st_size, "{}")
        with self._database.write() as connection:
            number = connection.execute(
                "INSERT INTO batches (id, created_at, expires_at, requests, stored_bytes, outcomes)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                values,
            ).lastrowid
            rows = ((number, entry.custom_id, entry.start, entry.size) for entry in entries)
            count = connection.executemany(
                "INSERT INTO requests (batch, custom_id, start, size) VALUES (?, ?, ?, ?)", rows
            ).rowcount
            connection.execute("UPDATE batches SET requests = ? WHERE number = ?", (count, number))
            set_owner(connection, body.name, owner)
        return self.get(body.name)

    def get(self, batch_id: str) -> Batch:
        """Raises `NotFoundError`, OSError."""
        with self._database.read() as connection:
            row = connection.execute(_GET, (batch_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"Message batch {batch_id} not found")
        return _batch(row)

    def list_batches(self) -> list[Batch]:
        """Return every batch, newest first. Raises OSError."""
        with self._database.read() as connection:
            rows = connection.execute(_LIST)
            return [_batch(row) for row in rows]

    def load_unfinished(self) -> list[Batch]:
        """Return the batches that have not ended, oldest first. Raises OSError.

        Removes bodies of no such batch, and what earlier versions stored. For the start alone,
        because a body that is being received has no batch yet.
        """
        unfinished = [batch for batch in self.list_batches() if batch.ended_at is None][::-1]
        ids = {batch.id for batch in unfinished}
        leftovers = [
            path for path in self._database.folder.glob(f"{_ID}_*") if path.name not in ids
        ]
        for path in leftovers:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if leftovers:
            _log.info("removed %d files that belong to no unfinished batch", len(leftovers))
        return unfinished

    def cancel(self, batch_id: str, now: float) -> Batch:
        """Set the time of a batch's first cancellation, unless it has ended.

        Raises `NotFoundError`, OSError.
        """
        with self._database.free() as connection:
            connection.execute(
                "UPDATE batches SET cancel_initiated_at = ? WHERE id = ?"
                " AND cancel_initiated_at IS NULL AND ended_at IS NULL",
                (now, batch_id),
            )
        return self.get(batch_id)

    def pending(self, batch: Batch) -> list[PendingRequest]:
        """Return the requests without a result, in order. Raises OSError."""
        query = "SELECT number, custom_id, start, size FROM requests WHERE batch = ?"
        with self._database.read() as connection:
            return [PendingRequest(*row) for row in connection.execute(query, (batch.number,))]

    def entry(self, batch: Batch, request: PendingRequest) -> bytes:
        """Return a request as it was sent, or nothing if the body was removed. Raises OSError."""
        try:
            with (self._database.folder / batch.id).open("rb") as body:
                body.seek(request.start)
                return body.read(request.size)
        except FileNotFoundError:
            return b""

    def add_result(self, batch: Batch, request: PendingRequest, result: BatchResult) -> None:
        """Replace a request by its result. Raises `NotFoundError`, OSError."""
        with self._database.write() as connection:
            is_pending = connection.execute(
                "DELETE FROM requests WHERE number = ?"
                " AND batch = (SELECT number FROM batches WHERE id = ?)",
                (request.number, batch.id),
            ).rowcount
            if not is_pending:  # the database was removed meanwhile
                raise NotFoundError(f"Message batch {batch.id} has no such request")
            connection.execute(_ADD_RESULT, _result_row(batch, request.custom_id, result))

    def end(self, batch: Batch, rest: BatchResult, ended_at: float) -> Batch:
        """End the batch: requests without a result get `rest`. Raises OSError."""
        key = (batch.number,)
        with self._database.write() as connection:
            rows = connection.execute("SELECT custom_id FROM requests WHERE batch = ?", key)
            connection.executemany(
                _ADD_RESULT, (_result_row(batch, custom_id, rest) for (custom_id,) in rows)
            )
            connection.execute("DELETE FROM requests WHERE batch = ?", key)
            outcomes = connection.execute(
                "SELECT outcome, count(*) FROM results WHERE batch = ? GROUP BY outcome", key
            )
            connection.execute(
                "UPDATE batches SET ended_at = ?, outcomes = ?, stored_bytes ="
                " (SELECT sum(length(line)) FROM results WHERE batch = batches.number)"
                " WHERE number = ?",
                (ended_at, json.dumps(dict(outcomes.fetchall())), *key),
            )
        (self._database.folder / batch.id).unlink(missing_ok=True)
        return self.get(batch.id)

    @contextmanager
    def results(self, batch: Batch) -> Generator[Content]:
        """Yield the results of an ended batch, also if it is deleted meanwhile. Raises OSError."""
        query = "SELECT line FROM results WHERE batch = ? ORDER BY number"
        with self._database.read() as connection:
            lines = (line for (line,) in connection.execute(query, (batch.number,)))
            yield Content(batch.stored_bytes, in_chunks(lines))

    def delete(self, batch: Batch) -> None:
        """Delete a batch that has ended. Raises OSError."""
        with self._database.free() as connection:
            connection.execute("DELETE FROM results WHERE batch = ?", (batch.number,))
            connection.execute("DELETE FROM batches WHERE number = ?", (batch.number,))
            remove_owner(connection, batch.id)


def _batch(row: Iterable[Any]) -> Batch:
    columns = list(row)
    columns[6] = json.loads(columns[6])  # the outcomes
    return Batch(*columns)


def _result_row(batch: Batch, custom_id: str, result: BatchResult) -> tuple[int, str, bytes]:
    line = BatchResultLine(custom_id=custom_id, result=result)
    return batch.number, result.type, f"{line.to_json()}\n".encode()
