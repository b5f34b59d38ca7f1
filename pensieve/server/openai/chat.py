"""`POST /v1/chat/completions`: the steps of a message, between a translation in and one out."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from pensieve.api.messages.events import MessageEvent
from pensieve.api.messages.message import Message
from pensieve.api.messages.request import Conversation, parse
from pensieve.openai.chat_chunks import ChatAnswerOptions, ChatFold
from pensieve.openai.chat_completion import ChatCompletion
from pensieve.openai.chat_request import ChatRequest
from pensieve.openai.conversation import conversation_of, custom_tools_of, tool_paths_of
from pensieve.openai.errors import chat_fields
from pensieve.server.http.request_body import read_body
from pensieve.server.messages.completion import AnswerOptions, Completer
from pensieve.server.messages.pipeline import AnswerWriter, Exchange, RequestPipeline
from pensieve.server.messages.sessions import Session, Sessions
from pensieve.server.middleware.request_context import key_name_of, request_context_of
from pensieve.server.openai.options import answer_options, stream_text
from pensieve.server.openai.wire import openai_wire
from pensieve.worker_threads import run_in_thread

# Headers in which clients name their session, next to the field `prompt_cache_key`.
SESSION_HEADERS = ("x-session-id", "session-id")


class ChatFormat:
    def __init__(self, options: ChatAnswerOptions) -> None:
        self._fold = ChatFold(options)

    def feed(self, events: Sequence[MessageEvent], choice: int) -> str:
        chunks = self._fold.feed(events, choice)
        return stream_text(chunks, is_end=self._fold.is_ended)

    def body(self, message: Message) -> ChatCompletion:
        return self._fold.completion


class ChatEndpoint:
    def __init__(
        self,
        pipeline: RequestPipeline,
        completer: Completer,
        sessions: Sessions,
        writer: AnswerWriter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pipeline = pipeline
        self._completer = completer
        self._sessions = sessions
        self._writer = writer
        self._clock = clock

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await read_body(request)
        record = request_context_of(scope).record
        with self._completer.expect():
            call, conversation = await run_in_thread(
                partial(_parsed, body, sees=self._pipeline.sees)
            )
            del body  # the answer does not need its megabytes
            request_context_of(scope).wire = openai_wire("chat", chat_fields(tool_paths_of(call)))
            conversation = await self._pipeline.with_files(conversation, record.key_name)
            await self._pipeline.validate(conversation)
            options = _options_of(call, record.key_name)
            prompt = await self._pipeline.render(conversation, options)
            session = session_of(request, call.prompt_cache_key, has_tools=bool(call.tools))
        if session is not None:
            record.session = session.name
            record.diverged_at = self._sessions.note(session, conversation, prompt)
        completions = self._completer.choices(prompt, options)
        answer_format = ChatFormat(self._answer_options_of(call))
        exchange = Exchange(scope, receive, send, conversation)
        await self._writer.write(completions, answer_format, exchange, stream=call.stream)

    def _answer_options_of(self, call: ChatRequest) -> ChatAnswerOptions:
        return ChatAnswerOptions(
            created=int(self._clock()),
            custom_tools=custom_tools_of(call),
            includes_usage=call.stream and call.stream_options.include_usage,
            service_tier=None if call.service_tier is None else "default",
            choices=call.n,
        )


def _parsed(body: bytes, *, sees: bool) -> tuple[ChatRequest, Conversation]:
    call = parse(ChatRequest, body)
    return call, conversation_of(call, sees=sees)


def _options_of(call: ChatRequest, client: str) -> AnswerOptions:
    max_tokens = call.max_completion_tokens
    return answer_options(
        call,
        call.max_tokens if max_tokens is None else max_tokens,
        call.top_logprobs if call.logprobs else None,
        client=client,
    )


def session_of(request: Request, cache_key: object, *, has_tools: bool) -> Session | None:
    """Return the session that a header or `prompt_cache_key` names."""
    names = (request.headers.get(header) for header in SESSION_HEADERS)
    name = next(filter(None, names), cache_key)
    # Without tools: the title of a session, which is no turn of it.
    if not isinstance(name, str):
        return None
    return Session(name, f"openai {has_tools}", key_name_of(request))
