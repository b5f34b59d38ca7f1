"""`POST /v1/messages` and `/v1/messages/count_tokens`, and the requests of message batches.

Each is one function that states the order of its steps; `RequestPipeline` has those up to the
prompt.
"""

import logging
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pensieve.api.batches import BatchedRequest
from pensieve.api.messages.message import Message, OriginalTokens, TokenCount
from pensieve.api.messages.request import (
    ApiVersion,
    Conversation,
    CountTokensRequest,
    MessagesRequest,
    api_version_of,
    parse,
)
from pensieve.api.messages.tools import ServerTool
from pensieve.engine.generation import NO_DRAFTS, Engine, Priority
from pensieve.errors import InvalidRequestError, PromptTooLongError
from pensieve.models.served_model import ServedModel
from pensieve.prompt.conversation.file_text import FileText, with_file_texts
from pensieve.prompt.conversation.validation import validate
from pensieve.prompt.render import Prompt, PromptRenderer
from pensieve.prompt.template.generated_answers import GeneratedAnswers
from pensieve.server.errors import failure_of
from pensieve.server.http.event_stream import (
    EventWriter,
    PingInterval,
    abort_of,
    run_until_disconnect,
    stream_until_disconnect,
)
from pensieve.server.http.request_body import read_body
from pensieve.server.http.responses import json_response
from pensieve.server.messages.completion import (
    AnswerOptions,
    Completer,
    Completion,
    SamplingChoice,
    drafts_text,
)
from pensieve.server.messages.sessions import Sessions, is_claude_code, priority_of
from pensieve.server.messages.threads import Threads, ThreadTurn
from pensieve.server.middleware.request_context import request_context_of
from pensieve.worker_threads import DeadlineThreads, run_in_thread

_log = logging.getLogger("pensieve.server")

# Rendering keeps a core busy: more threads at once are no faster, and each delays the event loop.
MAX_RENDER_THREADS = 4
# Rendering and tokenizing 8 million characters, which no context exceeds, takes 10 s (2026-11-30,
# two-core Linux). Some expressions in tokenizers take hours for some texts.
RENDER_TIMEOUT_S = 120.0
# What a request means that names no version.
OLDEST_VERSION = ApiVersion()

ConversationT = TypeVar("ConversationT", bound=Conversation)


class MessagesEndpoint:
    """Owns the message threads."""

    def __init__(
        self,
        pipeline: "RequestPipeline",
        completer: Completer,
        sessions: Sessions,
        ping_interval: PingInterval,
    ) -> None:
        self._pipeline = pipeline
        self._completer = completer
        self._sessions = sessions
        self._ping_interval = ping_interval
        self._threads = Threads()

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a conversation. A thread's earlier turns are joined first: the rest needs them."""
        request = Request(scope, receive)
        body = await read_body(request)
        with ExitStack() as answering:
            with self._completer.expect():
                call = await self._pipeline.parse(MessagesRequest, body)
                turn = answering.enter_context(self._threads.join(call, len(body)))
                del body  # the answer does not need its megabytes
                version = _version_of(request)
                await self._pipeline.validate(turn.call, version, stored_turns=turn.stored_turns)
                options = _options_of(turn.call, priority_of(request.headers, turn.call))
                prompt = await self._pipeline.render(turn.call, options)
            if options.priority != "side":  # titles and searches are no turns of their session
                self._sessions.note(request.headers, turn.call, prompt)
            completion = self._completer.complete(prompt, options)
            await self._write(completion, turn, scope, receive, send)

    async def count_tokens(self, request: Request) -> Response:
        """Count the input tokens that the same request to `create` would report, cached ones
        included. An estimate for prompts far beyond the model's context.
        """
        call = await self._pipeline.parse(CountTokensRequest, await read_body(request))
        await self._pipeline.validate(call, _version_of(request))
        try:
            prompt = await self._pipeline.render(call)
        except PromptTooLongError as error:
            return json_response(TokenCount(input_tokens=error.prompt_tokens))
        original = OriginalTokens(original_input_tokens=prompt.original_tokens)
        return json_response(
            TokenCount(
                input_tokens=len(prompt.tokens),
                context_management=None if call.context_management is None else original,
            )
        )

    async def answer_batched(self, params: bytes) -> Message:
        """Return the answer to one request of a message batch. Raises what `create` raises."""
        call = await self._pipeline.parse(BatchedRequest, params)
        await self._pipeline.validate(call)
        options = _options_of(call, "batch")
        prompt = await self._pipeline.render(call, options)
        return await self._completer.complete(prompt, options).run()

    async def _write(
        self, completion: Completion, turn: ThreadTurn, scope: Scope, receive: Receive, send: Send
    ) -> None:
        context, reply = request_context_of(scope), completion.reply
        context.usage = lambda: reply.usage
        context.drafts_text = lambda: (
            drafts_text(reply.drafts, reply.usage.output_tokens)
            if reply.drafts != NO_DRAFTS
            else ""
        )
        write = self._stream if turn.call.stream else self._whole
        await write(completion, turn, scope, receive, send)

    async def _whole(
        self, completion: Completion, turn: ThreadTurn, scope: Scope, receive: Receive, send: Send
    ) -> None:
        messages: list[Message] = []

        async def work() -> None:
            messages.append(await completion.run(on_answer=turn.on_answer))

        await run_until_disconnect(receive, work)
        await json_response(messages[0])(scope, receive, send)

    async def _stream(
        self, completion: Completion, turn: ThreadTurn, scope: Scope, receive: Receive, send: Send
    ) -> None:
        wire = request_context_of(scope).wire
        writer = EventWriter(send, wire.ping, self._ping_interval)
        format_events = wire.event_format()

        async def work() -> None:
            await completion.run(
                lambda events: writer.write(format_events(events)), on_answer=turn.on_answer
            )

        async def fail(error: BaseException) -> None:
            await _fail(error, writer, scope)

        await stream_until_disconnect(receive, work, writer, fail)


class RequestPipeline:
    """The steps from a request's body to its prompt, for one served model.

    They run in worker threads: tokenizing can take seconds and must not block the event loop. A
    crossing between threads costs about 0.1 ms.
    """

    def __init__(
        self,
        engine: Engine,
        model: ServedModel,
        file_text: FileText,  # raises `NotFoundError`
        generated_answers: GeneratedAnswers,
        threads: DeadlineThreads | None = None,
    ) -> None:
        self._engine = engine
        self._context_tokens = model.context_tokens
        self._file_text = file_text
        self._threads = threads or DeadlineThreads(MAX_RENDER_THREADS, RENDER_TIMEOUT_S)
        self._renderer = PromptRenderer(
            model.tokenizer, model.dialect, model.context_tokens, generated_answers
        )

    async def parse(self, kind: type[ConversationT], body: bytes) -> ConversationT:
        """Return the call in `body`, with the texts of its files.

        Raises `InvalidRequestError`, `RequestTooLargeError`, and `NotFoundError` for a file.
        """

        def parsed() -> ConversationT:
            call = parse(kind, body)
            return with_file_texts(call, self._file_text) if call.names_files else call

        return await run_in_thread(parsed)

    async def validate(
        self,
        call: Conversation,
        api_version: ApiVersion = OLDEST_VERSION,
        *,
        stored_turns: int = 0,
    ) -> None:
        """Raises what `prompt.conversation.validation.validate` raises."""
        await run_in_thread(partial(validate, call, api_version, stored_turns))
        server_tools = [tool.type for tool in call.tools if isinstance(tool, ServerTool)]
        if server_tools:
            _log.warning(
                "ignoring tools that only the hosted API can run: %s", ", ".join(server_tools)
            )

    async def render(self, call: Conversation, options: AnswerOptions | None = None) -> Prompt:
        """Return the prompt of a whole conversation. options: of its answer, if there will be one.

        Raises `InvalidRequestError`, also on timeout, and `PromptTooLongError` without tokenizing
        for a prompt far beyond the context.
        """
        try:
            return await self._threads.run(partial(self._render, call, options))
        except TimeoutError:
            raise InvalidRequestError(
                "messages: the model's chat template and tokenizer take too long for this prompt"
            ) from None

    def _render(self, call: Conversation, options: AnswerOptions | None) -> Prompt:
        health = self._engine.health
        answer_tokens = None
        if options is not None:
            answer_tokens = (
                self._context_tokens if options.max_tokens is None else options.max_tokens
            )
        return self._renderer.render(
            call,
            context_tokens=health.context_of(self._context_tokens),
            answer_tokens=answer_tokens,
            has_hints=health.takes_hints,
        )


async def _fail(error: BaseException, writer: EventWriter, scope: Scope) -> None:
    """End a stream that has begun with an `error` event.

    Abort the connection of Claude Code instead: it then retries the stream.
    """
    context = request_context_of(scope)
    failure = failure_of(error, context.request_id)
    if is_claude_code(Request(scope).headers) and (abort := abort_of(scope)):
        _log.warning(
            "%s failed in mid-stream, aborting the connection so that the client retries: %s",
            failure.request_id,
            failure.message,
        )
        abort()
        return
    await writer.end(context.wire.error_event(failure))


def _version_of(request: Request) -> ApiVersion:
    headers = request.headers
    return api_version_of(headers.get("anthropic-version"), headers.get("anthropic-beta", ""))


def _options_of(call: MessagesRequest, priority: Priority) -> AnswerOptions:
    return AnswerOptions(
        call.model,
        call.max_tokens,
        call.stop_sequences,
        SamplingChoice(call.temperature, call.top_p, call.top_k),
        priority,
    )
