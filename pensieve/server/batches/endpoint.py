"""`/v1/messages/batches`: batches are taken, told of, canceled, deleted; their results are sent as they lie on disk."""

from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from pensieve.api.base import rfc3339
from pensieve.api.batch_reading import read_batch
from pensieve.api.batches import (
    MAX_BODY_BYTES,
    BatchPage,
    DeletedBatch,
    MessageBatch,
    ProcessingStatus,
    RequestCounts,
)
from pensieve.api.pagination import CursorQuery, window
from pensieve.server.batches.registry import BatchRegistry
from pensieve.server.batches.spool import spooled_body
from pensieve.server.batches.store import Batch
from pensieve.server.http.file_download import FileDownload
from pensieve.server.http.json_response import json_response


class BatchesEndpoint:
    """Everything under `/v1/messages/batches`."""

    def __init__(self, book: BatchRegistry) -> None:
        self._book = book

    async def create(self, request: Request) -> Response:
        """Take a batch; it is on disk when this answers."""
        spooled = spooled_body(request, self._book.folder, max_bytes=MAX_BODY_BYTES)
        async with spooled as body:
            batch = await self._book.create(read_batch(body))
        return json_response(_told(batch, request))

    async def page(self, request: Request) -> Response:
        """A page of batches, the newest first."""
        query = CursorQuery.of(request.query_params.multi_items())
        batches = await self._book.all()
        shown = window([batch.id for batch in batches], query)
        data = tuple(_told(batch, request) for batch in batches[shown.start : shown.stop])
        page = BatchPage(
            data=data,
            has_more=shown.has_more,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
        )
        return json_response(page)

    async def one(self, request: Request) -> Response:
        """How one batch is."""
        return json_response(_told(await self._book.get(_batch_id(request)), request))

    async def results(self, request: Request) -> Response:
        """What became of each request of a batch that has ended."""
        return FileDownload(await self._book.results(_batch_id(request)), "application/x-jsonl")

    async def cancel(self, request: Request) -> Response:
        """Answer no more of a batch."""
        return json_response(_told(await self._book.cancel(_batch_id(request)), request))

    async def delete(self, request: Request) -> Response:
        """Forget a batch that has ended."""
        await self._book.delete(_batch_id(request))
        return json_response(DeletedBatch(id=_batch_id(request)))


def _batch_id(request: Request) -> str:
    return str(request.path_params["message_batch_id"])


def _told(batch: Batch, request: Request) -> MessageBatch:
    """The batch as clients see it. Its results are fetched from where the client asked: Host was checked before."""
    has_ended = batch.ended_at is not None
    url = f"http://{request.headers['host']}/v1/messages/batches/{batch.id}/results"
    return MessageBatch(
        id=batch.id,
        processing_status=_status(batch),
        request_counts=RequestCounts(**batch.outcomes)
        if has_ended
        else RequestCounts(processing=batch.requests),
        created_at=rfc3339(batch.created_at),
        expires_at=rfc3339(batch.expires_at),
        ended_at=_moment(batch.ended_at),
        cancel_initiated_at=_moment(batch.cancel_initiated_at),
        results_url=url if has_ended else None,
    )


def _status(batch: Batch) -> ProcessingStatus:
    if batch.ended_at is not None:
        return "ended"
    return "in_progress" if batch.cancel_initiated_at is None else "canceling"


def _moment(unix_s: float | None) -> datetime | None:
    return None if unix_s is None else rfc3339(unix_s)
