"""The steps that the endpoints of every wire share: from a request's body to its prompt
(`RequestPipeline`), and from the answer to the client (`AnswerWriter`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from starlette.types import Receive, Scope, Send

from pensieve.api.base import ApiModel
from pensieve.api.messages.events import MessageEvent
from pensieve.api.messages.message import Message
from pensieve.api.messages.request import (
    ApiVersion,
    Conversation,
    CountTokensRequest,
    parse,
)
from pensieve.api.messages.tools import ServerTool
from pensieve.engine.generation import Engine
from pensieve.errors import InvalidRequestError
from pensieve.models.served_model import ServedModel
from pensieve.prompt.conversation.validation import validate
from pensieve.prompt.raw_text import raw_prompt
from pensieve.prompt.render import Prompt, PromptRenderer
from pensieve.prompt.template.generated_answers import GeneratedAnswers
from pensieve.prompt.template.pictures import PictureMarks
from pensieve.server.activity.content import keeping_content
from pensieve.server.errors import failure_of
from pensieve.server.http.event_stream import (
    EventWriter,
    PingInterval,
    abort_of,
    run_until_disconnect,
    stream_until_disconnect,
)
from pensieve.server.http.responses import json_response
from pensieve.server.messages.completion import (
    AnswerOptions,
    Choices,
    Completion,
    OnAnswer,
)
from pensieve.server.messages.documents import DocumentReader
from pensieve.server.messages.pictures import PictureReader
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


class RequestPipeline:
    """The steps from a request's body to its prompt, for one served model.

    They run in worker threads: tokenizing can take seconds and must not block the event loop. A
    crossing between threads costs about 0.1 ms.
    """

    def __init__(
        self,
        engine: Engine,
        model: ServedModel,
        documents: DocumentReader,
        generated_answers: GeneratedAnswers,
        pictures: PictureReader | None = None,
    ) -> None:
        """pictures: None for a model that does not see them."""
        self._engine = engine
        self._context_tokens = model.context_tokens
        self._documents = documents
        self._pictures = pictures
        self._threads = DeadlineThreads(MAX_RENDER_THREADS, RENDER_TIMEOUT_S)
        self._model = model
        self._renderer = PromptRenderer(
            model.tokenizer,
            model.dialect,
            model.context_tokens,
            generated_answers,
            _picture_marks(model),
        )

    @property
    def sees(self) -> bool:
        """Whether the model reads pictures."""
        return self._pictures is not None and self._engine.health.sees

    async def parse(self, kind: type[ConversationT], body: bytes, key_name: str) -> ConversationT:
        """Return the call in `body`, with its files read; the key owns those that it refers to.

        Raises `InvalidRequestError`, and what `DocumentReader.read` raises.
        """
        sees = self._pictures is not None

        def parsed() -> tuple[ConversationT, bool]:
            call = parse(kind, body)
            return call, call.has_unread_documents or (sees and call.has_images)

        call, has_files = await run_in_thread(parsed)
        if not has_files:
            return call
        return await self.with_files(call, key_name, counts=kind is CountTokensRequest)

    async def with_files(
        self, call: ConversationT, key_name: str, *, counts: bool = False
    ) -> ConversationT:
        """Return a call with its documents as text, and its pictures as their places in the prompt.

        counts: its tokens are only counted. Raises what `DocumentReader.read` and
        `PictureReader.read` raise.
        """
        has_documents, has_images = await run_in_thread(
            lambda: (call.has_unread_documents, self.sees and call.has_images)
        )
        if has_images and self._pictures is not None and self.sees:
            call = await self._pictures.read(call, key_name, decodes=not counts)
        return await self._documents.read(call, key_name) if has_documents else call

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

    async def render_text(self, text: str, suffix: str | None = None) -> Prompt:
        """Return the prompt of a text without a chat template. Raises what `raw_prompt` raises,
        and `InvalidRequestError` on timeout.
        """
        try:
            return await self._threads.run(partial(self._render_text, text, suffix))
        except TimeoutError:
            raise InvalidRequestError(
                "prompt: the model's tokenizer takes too long for this prompt"
            ) from None

    def _render_text(self, text: str, suffix: str | None) -> Prompt:
        model = self._model
        context_tokens = self._engine.health.context_of(self._context_tokens)
        return raw_prompt(text, suffix, model.tokenizer, context_tokens, model.dialect.sampling)

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


def _picture_marks(model: ServedModel) -> PictureMarks | None:
    sight = model.sight
    return sight and PictureMarks(sight.start_token, sight.pad_token, sight.end_token)


# The answer.


class AnswerFormat(Protocol):
    """How an endpoint writes one answer."""

    def feed(self, events: Sequence[MessageEvent], choice: int) -> str:
        """Return the next events as server-sent events. choice: the index of their answer, if there
        are several.
        """
        ...

    def body(self, message: Message) -> ApiModel:
        """Return the whole answer. All its events were fed."""
        ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request's ASGI arguments. Its body was read."""

    scope: Scope
    receive: Receive
    send: Send
    asked: Conversation | str  # or a text to continue


@dataclass(frozen=True, slots=True)
class AnswerWriter:
    ping_interval: PingInterval
    shows_content: bool = False  # to users who look at the last requests

    async def write(
        self,
        completions: Sequence[Completion],
        answer_format: AnswerFormat,
        to: Exchange,
        *,
        stream: bool,
        on_answer: OnAnswer | None = None,
    ) -> None:
        record = request_context_of(to.scope).record
        record.is_streamed = stream
        if self.shows_content:
            on_answer = keeping_content(record, to.asked, on_answer)
        choices = Choices(completions, record.begin)
        write = self._stream if stream else self._whole
        await write(choices, answer_format, to, on_answer)

    async def _whole(
        self,
        choices: Choices,
        answer_format: AnswerFormat,
        to: Exchange,
        on_answer: OnAnswer | None,
    ) -> None:
        bodies: list[ApiModel] = []

        async def feed(choice: int, events: list[MessageEvent]) -> None:
            answer_format.feed(events, choice)

        async def work() -> None:
            message = await choices.run(feed, on_answer=on_answer)
            bodies.append(answer_format.body(message))

        await run_until_disconnect(to.receive, work)
        await json_response(bodies[0])(to.scope, to.receive, to.send)

    async def _stream(
        self,
        choices: Choices,
        answer_format: AnswerFormat,
        to: Exchange,
        on_answer: OnAnswer | None,
    ) -> None:
        ping = request_context_of(to.scope).wire.ping
        writer = EventWriter(to.send, ping, self.ping_interval)

        async def work() -> None:
            await choices.run(
                lambda choice, events: writer.write(answer_format.feed(events, choice)),
                on_answer=on_answer,
            )

        async def fail(error: BaseException) -> None:
            await _fail(error, writer, to.scope)

        await stream_until_disconnect(to.receive, work, writer, fail)


async def _fail(error: BaseException, writer: EventWriter, scope: Scope) -> None:
    """End a stream that has begun with an error.

    Abort the connection of Claude Code instead: it then retries the stream.
    """
    context = request_context_of(scope)
    failure = failure_of(error, context.request_id)
    status = context.wire.error_status(type(error)).status
    context.record.break_off(status)
    abort = abort_of(scope) if _is_claude_code(scope) else None
    end = ", aborting the connection so that the client retries" if abort else ""
    # Others may quote what the client sent.
    reason = failure.message if status >= 500 else f"status {status}"
    _log.warning("failed in mid-stream%s: %s", end, reason)
    if abort:
        abort()
    else:
        await writer.end(context.wire.error_event(failure))


def _is_claude_code(scope: Scope) -> bool:
    """After an `error` event in mid-stream it retries once without streaming, with a timeout of
    300 s; after a connection that ended it retries the stream up to ten times (2.1.330).
    """
    return request_context_of(scope).record.user_agent.startswith("claude-cli/")
