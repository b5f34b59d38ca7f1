"""`POST /v1/messages` and `/v1/messages/count_tokens`, and the requests of message batches.

Each is one function that states the order of its steps; `RequestPipeline` has those up to the
prompt, `AnswerWriter` the last one.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pensieve.api.base import named_event
from pensieve.api.batches import BatchedRequest
from pensieve.api.messages.events import MessageEvent
from pensieve.api.messages.message import Message, OriginalTokens, TokenCount
from pensieve.api.messages.request import (
    ApiVersion,
    Conversation,
    CountTokensRequest,
    MessagesRequest,
    api_version_of,
)
from pensieve.api.messages.tools import ServerTool
from pensieve.engine.generation import Priority
from pensieve.errors import PromptTooLongError
from pensieve.server.http.request_body import read_body
from pensieve.server.http.responses import json_response
from pensieve.server.messages.completion import AnswerOptions, Completer, OnBegin, SamplingChoice
from pensieve.server.messages.pipeline import AnswerWriter, Exchange, RequestPipeline
from pensieve.server.messages.sessions import Session, Sessions
from pensieve.server.messages.threads import Threads
from pensieve.server.middleware.request_context import key_name_of, request_context_of

SESSION_HEADER = "x-claude-code-session-id"
AGENT_HEADER = "x-claude-code-agent-id"
_AGENT_HEADERS = (AGENT_HEADER, "x-claude-code-parent-agent-id")


class MessagesFormat:
    """Anthropic's: the events as they are, and their message."""

    def feed(self, events: Sequence[MessageEvent], choice: int) -> str:
        return "".join(map(named_event, events))

    def body(self, message: Message) -> Message:
        return message


class MessagesEndpoint:
    """Owns the message threads."""

    def __init__(
        self,
        pipeline: RequestPipeline,
        completer: Completer,
        sessions: Sessions,
        writer: AnswerWriter,
    ) -> None:
        self._pipeline = pipeline
        self._completer = completer
        self._sessions = sessions
        self._writer = writer
        self._threads = Threads()

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a conversation. A thread's earlier turns are joined first: the rest needs them."""
        request = Request(scope, receive)
        body = await read_body(request)
        record = request_context_of(scope).record
        with ExitStack() as answering:
            with self._completer.expect():
                call = await self._pipeline.parse(MessagesRequest, body, record.key_name)
                turn = answering.enter_context(self._threads.join(call, len(body), record.key_name))
                del body  # the answer does not need its megabytes
                version = _version_of(request)
                await self._pipeline.validate(turn.call, version, stored_turns=turn.stored_turns)
                priority = priority_of(request.headers, turn.call)
                options = _options_of(turn.call, priority, record.key_name)
                prompt = await self._pipeline.render(turn.call, options)
            if session := session_of(request.headers, record.key_name):
                record.session = session.name
                if options.priority != "side":  # titles and searches are no turns of their session
                    record.diverged_at = self._sessions.note(session, turn.call, prompt)
            completion = self._completer.complete(prompt, options)
            await self._writer.write(
                [completion],
                MessagesFormat(),
                Exchange(scope, receive, send, turn.call),
                stream=turn.call.stream,
                on_answer=turn.on_answer,
            )

    async def count_tokens(self, request: Request) -> Response:
        """Count the input tokens that the same request to `create` would report, cached ones
        included. An estimate for prompts far beyond the model's context.
        """
        body = await read_body(request)
        call = await self._pipeline.parse(CountTokensRequest, body, key_name_of(request))
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

    async def answer_batched(self, params: bytes, key_name: str, on_begin: OnBegin) -> Message:
        """Return the answer to one request of a message batch. Raises what `create` raises."""
        call = await self._pipeline.parse(BatchedRequest, params, key_name)
        await self._pipeline.validate(call)
        options = _options_of(call, "batch", key_name)
        prompt = await self._pipeline.render(call, options)
        return await self._completer.complete(prompt, options).run(on_begin=on_begin)


def _version_of(request: Request) -> ApiVersion:
    headers = request.headers
    return api_version_of(headers.get("anthropic-version"), headers.get("anthropic-beta", ""))


def _options_of(call: MessagesRequest, priority: Priority, client: str) -> AnswerOptions:
    return AnswerOptions(
        call.model,
        call.max_tokens,
        call.stop_sequences,
        SamplingChoice(call.temperature, call.top_p, call.top_k),
        priority,
        client=client,
    )


def priority_of(headers: Mapping[str, str], call: Conversation) -> Priority:
    """Return the priority of a call.

    Claude Code marks its sub-agents by a header; its calls without tools are titles and summaries.
    """
    if any(name in headers for name in _AGENT_HEADERS):
        return "agent"
    has_own_tools = any(not isinstance(tool, ServerTool) for tool in call.tools)
    if SESSION_HEADER in headers and not has_own_tools:
        return "side"
    return "main"


def session_of(headers: Mapping[str, str], owner: str) -> Session | None:
    """Return the session and agent of Claude Code; None for other clients."""
    if SESSION_HEADER not in headers:
        return None
    return Session(headers[SESSION_HEADER], headers.get(AGENT_HEADER, ""), owner)
