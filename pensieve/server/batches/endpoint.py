"""`/v1/messages/batches`: create, list, retrieve, cancel and delete batches; send their results."""

from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from pensieve.api.base import rfc3339
from pensieve.api.batch_reading import read_batch
from pensieve.api.batches import (
    BatchPage,
    DeletedBatch,
    MessageBatch,
    ProcessingStatus,
    RequestCounts,
)
from pensieve.api.pagination import CursorQuery, window
from pensieve.server.batches.received_body import received_body
from pensieve.server.batches.registry import BatchRegistry
from pensieve.server.batches.store import Batch
from pensieve.server.http.responses import Download, json_response
from pensieve.server.middleware.request_context import key_name_of


class BatchesEndpoint:
    def __init__(self, registry: BatchRegistry) -> None:
        self._registry = registry

    async def create(self, request: Request) -> Response:
        """Create a batch; it is on disk before the response is sent."""
        path = await self._registry.new_body()
        async with received_body(request, path) as body:
            batch = await self._registry.create(path, read_batch(body), key_name_of(request))
        return json_response(_message_batch(batch, request))

    async def list(self, request: Request) -> Response:
        query = CursorQuery.of(request.query_params.multi_items())
        batches = await self._registry.list_batches(key_name_of(request))
        visible = window([batch.id for batch in batches], query)
        data = tuple(
            _message_batch(batch, request) for batch in batches[visible.start : visible.stop]
        )
        page = BatchPage(
            data=data,
            has_more=visible.has_more,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
        )
        return json_response(page)

    async def retrieve(self, request: Request) -> Response:
        batch = await self._registry.get(_batch_id(request), key_name_of(request))
        return json_response(_message_batch(batch, request))

    async def results(self, request: Request) -> Response:
        results = await self._registry.results(_batch_id(request), key_name_of(request))
        return Download(results, "application/x-jsonl")

    async def cancel(self, request: Request) -> Response:
        batch = await self._registry.cancel(_batch_id(request), key_name_of(request))
        return json_response(_message_batch(batch, request))

    async def delete(self, request: Request) -> Response:
        await self._registry.delete(_batch_id(request), key_name_of(request))
        return json_response(DeletedBatch(id=_batch_id(request)))


def _batch_id(request: Request) -> str:
    return str(request.path_params["message_batch_id"])


def _message_batch(batch: Batch, request: Request) -> MessageBatch:
    has_ended = batch.ended_at is not None
    # Results are fetched from the address that the client used: Host was checked before.
    url = f"{request.scope['scheme']}://{request.headers['host']}/v1/messages/batches/{batch.id}/results"
    return MessageBatch(
        id=batch.id,
        processing_status=_status(batch),
        request_counts=RequestCounts(**batch.outcomes)
        if has_ended
        else RequestCounts(processing=batch.requests),
        created_at=rfc3339(batch.created_at),
        expires_at=rfc3339(batch.expires_at),
        ended_at=_rfc3339_or_none(batch.ended_at),
        cancel_initiated_at=_rfc3339_or_none(batch.cancel_initiated_at),
        results_url=url if has_ended else None,
    )


def _status(batch: Batch) -> ProcessingStatus:
    if batch.ended_at is not None:
        return "ended"
    return "in_progress" if batch.cancel_initiated_at is None else "canceling"


def _rfc3339_or_none(unix_s: float | None) -> datetime | None:
    return None if unix_s is None else rfc3339(unix_s)
