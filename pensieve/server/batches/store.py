"""Stores message batches on disk: their requests and the results so far.

A batch is a folder: `batch.json`, its record, replaced atomically; `requests.txt`, a line each
(custom id, blank, params as JSON), written before the folder gets its final name and removed when
the batch has ended; `results.jsonl`, appended and synced line by line. Consistent after a crash at
any point: a line that was cut short is truncated, and its request counts as not done. All calls
block, so the registry makes them in worker threads, and for one batch never two at once.
"""

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from pensieve.api.batches import BatchEntry, BatchResult, BatchResultLine
from pensieve.atomic_files import TEMPORARY, sync, sync_path, write_atomically
from pensieve.private_files import make_folder, open_private
from pensieve.untrusted_json import read_json, read_record

_log = logging.getLogger("pensieve.server")

RECORD = "batch.json"
REQUESTS = "requests.txt"
RESULTS = "results.jsonl"
_OUTCOMES = {"succeeded", "errored", "canceled", "expired"}


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch's record. Times are Unix seconds."""

    id: str
    created_at: float
    expires_at: float
    requests: int
    stored_bytes: int
    cancel_initiated_at: float | None = None
    ended_at: float | None = None
    # How many requests ended with each outcome, once the batch has ended.
    outcomes: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request without a result, and the position of its params in the file."""

    custom_id: str
    start: int
    size: int


class BatchStore:
    """Owns the folder, which is created with the first batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load_all(self) -> list[Batch]:
        """Return every batch, oldest first.

        Removes leftovers of creations and deletions that crashed.
        """
        if not self.folder.exists():
            return []
        batches: list[Batch] = []
        for folder in self.folder.iterdir():
            if folder.name.endswith(TEMPORARY):
                shutil.rmtree(folder, ignore_errors=True)
            elif (batch := _read_record(folder)) is not None:
                batches.append(batch)
        return sorted(batches, key=_sort_key)

    def create(self, batch: Batch, entries: Iterable[BatchEntry]) -> Batch:
        """Store a new batch, completely or not at all, and set its size and number of requests.

        Raises OSError, and what `entries` raise.
        """
        draft = self._path(batch.id + TEMPORARY)
        make_folder(self.folder)
        draft.mkdir(mode=0o700)
        try:
            counter = count()  # `zip` advances it only if there is an entry
            lines = (_request_line(entry) for entry, _ in zip(entries, counter, strict=False))
            size = _write_lines(draft / REQUESTS, lines)
            batch = replace(batch, requests=next(counter), stored_bytes=size)
            self._write_record(draft, batch)
            draft.rename(self._path(batch.id))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync_path(self.folder)
        return batch

    def save(self, batch: Batch) -> None:
        """Raises OSError."""
        self._write_record(self._path(batch.id), batch)

    def pending(self, batch: Batch) -> list[PendingRequest]:
        """Return the requests without a result, in order. Raises OSError."""
        done = self._outcomes(batch)
        return [request for request in self._requests(batch) if request.custom_id not in done]

    def params(self, batch: Batch, request: PendingRequest) -> bytes:
        """Return a request's params as JSON. Raises OSError."""
        with (self._path(batch.id) / REQUESTS).open("rb") as file:
            file.seek(request.start)
            return file.read(request.size)

    def append(self, batch: Batch, line: BatchResultLine) -> None:
        """Add one result. Raises OSError, and then no part of the result is stored."""
        _write_lines(self.results(batch), [_result_line(line)])

    def end(self, batch: Batch, rest: BatchResult, ended_at: float) -> Batch:
        """End the batch: requests without a result get `rest`. Can be repeated after an OSError."""
        outcomes = self._outcomes(batch)
        requests = self._requests(batch)
        unanswered = [
            request.custom_id for request in requests if request.custom_id not in outcomes
        ]
        lines = (BatchResultLine(custom_id=custom_id, result=rest) for custom_id in unanswered)
        _write_lines(self.results(batch), map(_result_line, lines))
        ended = replace(
            batch,
            ended_at=ended_at,
            outcomes=dict(Counter([*outcomes.values(), *(rest.type for _ in unanswered)])),
            stored_bytes=self.results(batch).stat().st_size,
        )
        self.save(ended)
        (self._path(batch.id) / REQUESTS).unlink(missing_ok=True)
        return ended

    def results(self, batch: Batch) -> Path:
        """Return the path of the results, JSON lines."""
        return self._path(batch.id) / RESULTS

    def delete(self, batch: Batch) -> None:
        """Raises OSError."""
        deleted = self._path(batch.id + TEMPORARY)
        self._path(batch.id).rename(deleted)
        sync_path(self.folder)
        shutil.rmtree(deleted, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _write_record(self, folder: Path, batch: Batch) -> None:
        write_atomically(folder / RECORD, json.dumps(asdict(batch), indent=2).encode())

    def _requests(self, batch: Batch) -> Iterator[PendingRequest]:
        with (self._path(batch.id) / REQUESTS).open("rb") as file:
            start = 0
            for line in file:
                custom_id = line.partition(b" ")[0]
                params_start = start + len(custom_id) + 1
                start += len(line)
                yield PendingRequest(
                    custom_id.decode(errors="replace"), params_start, start - params_start
                )

    def _outcomes(self, batch: Batch) -> dict[str, str]:
        """Return the kinds of the results by custom id.

        Truncates a partial last line of the file.
        """
        outcomes: dict[str, str] = {}
        whole_bytes = 0
        if not self.results(batch).exists():
            return outcomes
        with self.results(batch).open("r+b") as file:
            for line in file:
                if (outcome := _outcome(line)) is None:
                    _log.warning(
                        "batch %s: dropping a partial result, its request is answered again",
                        batch.id,
                    )
                    break
                outcomes.update([outcome])
                whole_bytes += len(line)
            file.truncate(whole_bytes)
        return outcomes


def _sort_key(batch: Batch) -> tuple[float, str]:
    return batch.created_at, batch.id


def _read_record(folder: Path) -> Batch | None:
    try:
        batch = read_record(Batch, (folder / RECORD).read_bytes())
    except (OSError, ValueError) as error:
        # The folder stays, for diagnosis.
        _log.warning("failed to read a batch record, ignoring %s: %s", folder, error)
        return None
    is_valid = batch.id == folder.name and batch.outcomes.keys() <= _OUTCOMES
    return batch if is_valid else None


def _request_line(entry: BatchEntry) -> bytes:
    return f"{entry.custom_id} {json.dumps(entry.params, separators=(',', ':'))}\n".encode()


def _result_line(line: BatchResultLine) -> bytes:
    return f"{line.to_json()}\n".encode()


def _outcome(line: bytes) -> tuple[str, str] | None:
    """Return a result's custom id and kind, or None for a partial line."""
    try:
        result: Any = read_json(line)
        return (result["custom_id"], result["result"]["type"]) if line.endswith(b"\n") else None
    except (ValueError, TypeError, LookupError):
        return None


def _write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Append `lines` to a private file and sync it, all or none. Return its size."""
    descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        size = os.fstat(descriptor).st_size
        try:
            for line in lines:
                _write(descriptor, line)
            sync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    """Unbuffered: bytes of a failed write must not be written when the file is closed."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
