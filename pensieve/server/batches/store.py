"""Message batches on disk: what was asked, what came of it so far. Right after a crash at any line.

A batch is a folder: `batch.json`, its record, replaced whole; `requests.txt`, a line each (custom id, blank, params as
JSON), written before the folder gets its name and removed when the batch has ended; `results.jsonl`, one synced line
after another. A line that a crash cut short is cut off, and its request counts as not done. Blocks, so it is called in
worker threads; every call for one batch must have returned before the next, which is the queue's business.
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
    """One batch's record. Times are Unix seconds. outcomes: how many requests ended how, once the batch has ended."""

    id: str
    created_at: float
    expires_at: float
    requests: int
    stored_bytes: int
    cancel_initiated_at: float | None = None
    ended_at: float | None = None
    outcomes: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """One request of a batch that has no result yet, by where its params stand in the file."""

    custom_id: str
    start: int
    size: int


class BatchStore:
    """Owns the folder. The folder is made with the first batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Batch]:
        """Every batch, the oldest first. Removes what a crash left of batches that were being made or deleted."""
        if not self.folder.exists():
            return []
        batches: list[Batch] = []
        for place in self.folder.iterdir():
            if place.name.endswith(TEMPORARY):
                shutil.rmtree(place, ignore_errors=True)
            elif (batch := _read_record(place)) is not None:
                batches.append(batch)
        return sorted(batches, key=_age)

    def create(self, batch: Batch, entries: Iterable[BatchEntry]) -> Batch:
        """Keep a new batch; it is there whole or not at all. How many `entries` there are, and what they take, is found here.

        Raises OSError, and what `entries` raise.
        """
        draft = self._place(batch.id + TEMPORARY)
        make_folder(self.folder)
        draft.mkdir(mode=0o700)
        try:
            counter = count()  # which `zip` asks only where there is an entry
            lines = (_request_line(entry) for entry, _ in zip(entries, counter, strict=False))
            size = _write_lines(draft / REQUESTS, lines)
            batch = replace(batch, requests=next(counter), stored_bytes=size)
            self._write_record(draft, batch)
            draft.rename(self._place(batch.id))
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync_path(self.folder)
        return batch

    def save(self, batch: Batch) -> None:
        """Replace the record. Raises OSError."""
        self._write_record(self._place(batch.id), batch)

    def waiting(self, batch: Batch) -> list[WaitingRequest]:
        """The requests without a result, in their order. Raises OSError."""
        done = self._outcomes(batch)
        return [one for one in self._requests(batch) if one.custom_id not in done]

    def params(self, batch: Batch, request: WaitingRequest) -> bytes:
        """A request's params: JSON. Raises OSError."""
        with (self._place(batch.id) / REQUESTS).open("rb") as file:
            file.seek(request.start)
            return file.read(request.size)

    def append(self, batch: Batch, line: BatchResultLine) -> None:
        """Keep one result. Raises OSError, and then no part of the result was kept."""
        _write_lines(self.results(batch), [_result_line(line)])

    def end(self, batch: Batch, rest: BatchResult, ended_at: float) -> Batch:
        """End the batch: requests without a result get `rest` for one. Raises OSError; then it can be called again."""
        outcomes = self._outcomes(batch)
        asked = self._requests(batch)
        unanswered = [one.custom_id for one in asked if one.custom_id not in outcomes]
        lines = (BatchResultLine(custom_id=custom_id, result=rest) for custom_id in unanswered)
        _write_lines(self.results(batch), map(_result_line, lines))
        ended = replace(
            batch,
            ended_at=ended_at,
            outcomes=dict(Counter([*outcomes.values(), *(rest.type for _ in unanswered)])),
            stored_bytes=self.results(batch).stat().st_size,
        )
        self.save(ended)
        (self._place(batch.id) / REQUESTS).unlink(missing_ok=True)
        return ended

    def results(self, batch: Batch) -> Path:
        """The file of the batch's results, a line of JSON each."""
        return self._place(batch.id) / RESULTS

    def delete(self, batch: Batch) -> None:
        """Forget the batch. Raises OSError."""
        gone = self._place(batch.id + TEMPORARY)
        self._place(batch.id).rename(gone)
        sync_path(self.folder)
        shutil.rmtree(gone, ignore_errors=True)

    def _place(self, name: str) -> Path:
        return self.folder / name

    def _write_record(self, place: Path, batch: Batch) -> None:
        write_atomically(place / RECORD, json.dumps(asdict(batch), indent=2).encode())

    def _requests(self, batch: Batch) -> Iterator[WaitingRequest]:
        with (self._place(batch.id) / REQUESTS).open("rb") as file:
            start = 0
            for line in file:
                custom_id = line.partition(b" ")[0]
                before = start + len(custom_id) + 1
                start += len(line)
                yield WaitingRequest(custom_id.decode(errors="replace"), before, start - before)

    def _outcomes(self, batch: Batch) -> dict[str, str]:
        """What became of the requests that are done, by custom id. Cuts a torn last line off the file."""
        outcomes: dict[str, str] = {}
        whole_bytes = 0
        if not self.results(batch).exists():
            return outcomes
        with self.results(batch).open("r+b") as file:
            for line in file:
                if (outcome := _outcome(line)) is None:
                    _log.warning("batch %s: a result was cut short; it is made again", batch.id)
                    break
                outcomes.update([outcome])
                whole_bytes += len(line)
            file.truncate(whole_bytes)
        return outcomes


def _age(batch: Batch) -> tuple[float, str]:
    return batch.created_at, batch.id


def _read_record(place: Path) -> Batch | None:
    """A batch whose record cannot be read is left alone: it may tell somebody what happened."""
    try:
        batch = read_record(Batch, (place / RECORD).read_bytes())
    except (OSError, ValueError) as error:
        _log.warning("%s is no batch's folder, it is not used: %s", place, error)
        return None
    is_known = batch.id == place.name and batch.outcomes.keys() <= _OUTCOMES
    return batch if is_known else None


def _request_line(entry: BatchEntry) -> bytes:
    return f"{entry.custom_id} {json.dumps(entry.params, separators=(',', ':'))}\n".encode()


def _result_line(line: BatchResultLine) -> bytes:
    return f"{line.to_json()}\n".encode()


def _outcome(line: bytes) -> tuple[str, str] | None:
    """A result's custom id and kind; None where the line is not whole."""
    try:
        found: Any = read_json(line)
        return (found["custom_id"], found["result"]["type"]) if line.endswith(b"\n") else None
    except (ValueError, TypeError, LookupError):
        return None


def _write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Add `lines` to a file of our own and sync it: all of them or, where that fails, none. Its size."""
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
    """Past any buffer: what a failed write left in one would be written when it is closed."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
