"""`POST /v1/responses` and what belongs to it: stored responses and token counts.

The steps are those of a message, between a translation in and one out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.types import Receive, Scope, Send

from pensieve.api.base import named_event
from pensieve.api.messages.events import MessageEvent
from pensieve.api.messages.message import Message
from pensieve.api.messages.request import parse
from pensieve.errors import InvalidRequestError, PromptTooLongError
from pensieve.openai.errors import FieldPaths, responses_fields
from pensieve.openai.responses.conversation import TranslatedRequest, translated
from pensieve.openai.responses.echo import response_to
from pensieve.openai.responses.fold import FoldOptions, ResponseFold
from pensieve.openai.responses.request import (
    InputItemsQuery,
    InputTokensRequest,
    ResponsesRequest,
    RetrieveQuery,
)
from pensieve.openai.responses.response import (
    DeletedResponse,
    InputTokens,
    Response,
    ResponseError,
)
from pensieve.openai.responses.stored_items import item_page, reference_of, stored_item
from pensieve.server.errors import Failure
from pensieve.server.http.request_body import read_body
from pensieve.server.http.responses import json_response
from pensieve.server.messages.completion import Completer
from pensieve.server.messages.pipeline import AnswerWriter, Exchange, RequestPipeline
from pensieve.server.messages.sessions import Sessions
from pensieve.server.middleware.request_context import key_name_of, request_context_of
from pensieve.server.openai.chat import session_of
from pensieve.server.openai.options import answer_options
from pensieve.server.openai.response_store import ResponseStore, StoredResponse
from pensieve.server.openai.wire import error_code, error_envelope, openai_wire
from pensieve.server.wire import Wire
from pensieve.worker_threads import run_in_thread

_RequestT = TypeVar("_RequestT", bound=InputTokensRequest)
_JSON = "application/json"


class ResponsesFormat:
    """Writes one response; calls `on_end` before its last event is written."""

    def __init__(
        self, fold: ResponseFold, fields: FieldPaths, on_end: Callable[[ResponseFold], None]
    ) -> None:
        self._fold = fold
        self._fields = fields
        self._on_end = on_end

    @property
    def wire(self) -> Wire:
        """The wire of this response: events that keep it alive, or fail it, are numbered, too."""
        return replace(
            openai_wire("responses", self._fields),
            error_event=self._error_event,
            ping=self._ping,
        )

    def feed(self, events: Sequence[MessageEvent], choice: int) -> str:
        written = self._fold.feed(events)
        if self._fold.is_ended:
            self._on_end(self._fold)
        return "".join(map(named_event, written))

    def body(self, message: Message) -> Response:
        return self._fold.response

    def _ping(self) -> str:
        return named_event(self._fold.in_progress())

    def _error_event(self, failure: Failure) -> str:
        message = error_envelope(failure, self._fields).error.message
        error = ResponseError(code=error_code(failure), message=message)
        return named_event(self._fold.failed(error))


class ResponsesEndpoint:
    def __init__(
        self,
        pipeline: RequestPipeline,
        completer: Completer,
        sessions: Sessions,
        writer: AnswerWriter,
        store: ResponseStore,
    ) -> None:
        self._pipeline = pipeline
        self._completer = completer
        self._sessions = sessions
        self._writer = writer
        self._store = store

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await read_body(request)
        record = request_context_of(scope).record
        with self._completer.expect():
            call, whole = await self._translated(ResponsesRequest, body, record.key_name)
            del body  # the answer does not need its megabytes
            fields = responses_fields(whole.tools.paths)
            answer_format = ResponsesFormat(
                self._fold_of(call, whole), fields, partial(self._add, call, record.key_name)
            )
            request_context_of(scope).wire = answer_format.wire
            await self._pipeline.validate(whole.conversation)
            options = answer_options(
                call,
                0 if whole.is_empty else call.max_output_tokens,
                call.top_logprobs if call.has_logprobs else None,
                client=record.key_name,
            )
            prompt = await self._pipeline.render(whole.conversation, options)
        session = session_of(request, call.prompt_cache_key, has_tools=bool(call.tools))
        if session is not None:
            record.session = session.name
            record.diverged_at = self._sessions.note(session, whole.conversation, prompt)
        completion = self._completer.complete(prompt, options)
        exchange = Exchange(scope, receive, send, whole.conversation)
        await self._writer.write([completion], answer_format, exchange, stream=call.stream)

    async def count_tokens(self, request: Request) -> HttpResponse:
        """Count the input tokens that the same request to `create` would report."""
        body = await read_body(request)
        _, whole = await self._translated(InputTokensRequest, body, key_name_of(request))
        fields = responses_fields(whole.tools.paths)
        request_context_of(request.scope).wire = openai_wire("responses", fields)
        await self._pipeline.validate(whole.conversation)
        try:
            prompt = await self._pipeline.render(whole.conversation)
        except PromptTooLongError as error:
            return json_response(InputTokens(input_tokens=error.prompt_tokens))
        return json_response(InputTokens(input_tokens=len(prompt.tokens)))

    async def retrieve(self, request: Request) -> HttpResponse:
        query = RetrieveQuery.of(request.query_params.multi_items())
        if query.stream or query.starting_after is not None:
            raise InvalidRequestError("stream: Only background responses can be streamed again")
        body = await self._store.retrieve(_id_of(request), key_name_of(request))
        return HttpResponse(body, media_type=_JSON)

    async def delete(self, request: Request) -> HttpResponse:
        await self._store.delete(_id_of(request), key_name_of(request))
        return json_response(DeletedResponse(id=_id_of(request)))

    async def input_items(self, request: Request) -> HttpResponse:
        query = InputItemsQuery.of(request.query_params.multi_items())
        items = await self._store.input_items(_id_of(request), key_name_of(request))
        return json_response(item_page(items, query))

    async def cancel(self, request: Request) -> HttpResponse:
        await self._store.retrieve(_id_of(request), key_name_of(request))
        raise InvalidRequestError("Only background responses can be cancelled.")

    async def _translated(
        self, kind: type[_RequestT], body: bytes, owner: str
    ) -> tuple[_RequestT, TranslatedRequest]:
        """Return the request in `body` without references, and its conversation, documents as text.
        owner: of what it refers to.

        Raises `InvalidRequestError`, also for an unknown previous response, and `NotFoundError` for
        an unknown item, and what `RequestPipeline.with_files` raises.
        """
        call = await run_in_thread(partial(parse, kind, body))
        call = await self._without_references(call, owner)
        previous_id = call.previous_response_id
        stored = [] if previous_id is None else await self._store.history(previous_id, owner)
        whole = await run_in_thread(partial(translated, call, stored, sees=self._pipeline.sees))
        counts = not issubclass(kind, ResponsesRequest)
        conversation = await self._pipeline.with_files(whole.conversation, owner, counts=counts)
        return call, replace(whole, conversation=conversation)

    async def _without_references(self, call: _RequestT, owner: str) -> _RequestT:
        ids = list(filter(None, map(reference_of, call.input)))
        if not ids:
            return call
        found = iter(await self._store.items(ids, owner))
        items = (next(found) if reference_of(item) else item for item in call.input)
        return call.model_copy(update={"input": tuple(items)})

    def _fold_of(self, call: ResponsesRequest, whole: TranslatedRequest) -> ResponseFold:
        return ResponseFold(
            FoldOptions(
                response_to(call, created_at=_now()),
                _now,
                whole.tools,
                has_summary=call.has_summary,
                seals_thoughts=call.seals_thoughts,
            )
        )

    def _add(self, call: ResponsesRequest, owner: str, fold: ResponseFold) -> None:
        if call.store:
            self._store.add(
                StoredResponse(
                    id=fold.response.id,
                    body=fold.response.to_json().encode(),
                    previous_id=call.previous_response_id,
                    input=tuple(map(stored_item, call.input)),
                    output=tuple(item.model_dump(mode="json") for item in fold.stored_items),
                    owner=owner,
                )
            )


def _now() -> int:
    return int(time.time())


def _id_of(request: Request) -> str:
    return str(request.path_params["response_id"])
