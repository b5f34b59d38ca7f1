"""Turns a request's bytes into a call, and a call into its prompt, for `messages`, `count_tokens`
and message batches.

Parsing, rendering and tokenizing run in worker threads: tokenizing can take seconds and must not
block the event loop. A crossing between threads costs about 0.1 ms.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from starlette.requests import Request

from pensieve.api.messages.request import Conversation, MessagesRequest, parse
from pensieve.api.messages.tools import ServerTool
from pensieve.api.messages.validation import check_call, check_choice, check_order
from pensieve.api.version import ApiVersion, api_version_of
from pensieve.engine.generation import Priority
from pensieve.errors import InvalidRequestError
from pensieve.models.served_model import ServedModel
from pensieve.prompt.conversation.content_support import (
    check_content_supported,
    check_generation_supported,
)
from pensieve.prompt.conversation.file_text import FileText, with_file_texts
from pensieve.prompt.render import Prompt, PromptRenderer
from pensieve.prompt.template.generated_answers import GeneratedAnswers
from pensieve.server.http.request_body import read_body
from pensieve.server.messages.sessions import AGENT_HEADER, SESSION_HEADER
from pensieve.server.worker_threads import DeadlineThreads, run_in_thread

_log = logging.getLogger("pensieve.server")

_AGENT_HEADERS = (AGENT_HEADER, "x-claude-code-parent-agent-id")

# Rendering keeps a core busy: more threads at once are no faster, and each delays the event loop.
MAX_RENDER_THREADS = 4
# Rendering and tokenizing 8 million characters, which no context exceeds, takes 10 s (2026-11-30,
# two-core Linux). Some expressions in tokenizers take hours for some texts.
RENDER_TIMEOUT_S = 120.0

ConversationT = TypeVar("ConversationT", bound=Conversation)


class RequestPipeline:
    """Reads calls for one served model."""

    def __init__(
        self,
        model: ServedModel,
        file_text: FileText,  # raises `NotFoundError`
        generated_answers: GeneratedAnswers,
        context_tokens: Callable[[], int],  # the current limit for prompt and answer
        threads: DeadlineThreads | None = None,
    ) -> None:
        self._file_text = file_text
        self._context_tokens = context_tokens
        self._threads = threads or DeadlineThreads(MAX_RENDER_THREADS, RENDER_TIMEOUT_S)
        self._renderer = PromptRenderer(
            model.tokenizer, model.dialect, model.context_tokens, generated_answers
        )

    async def read(self, request: Request, kind: type[ConversationT]) -> tuple[ConversationT, int]:
        """Return the call in the body, and the body's length in bytes.

        Raises what `parse` and `read_body` raise.
        """
        body = await read_body(request)
        headers = request.headers
        version = api_version_of(
            headers.get("anthropic-version"), headers.get("anthropic-beta", "")
        )
        return await self.parse(kind, body, version), len(body)

    async def parse(
        self, kind: type[ConversationT], body: bytes, version: ApiVersion | None = None
    ) -> ConversationT:
        """Raises `InvalidRequestError`, `RequestTooLargeError`, and `NotFoundError` for a file."""
        return await run_in_thread(partial(self._parse, kind, body, version or ApiVersion()))

    async def render(self, call: Conversation, *, stored_turns: int = 0) -> Prompt:
        """Return the prompt of a whole conversation; its first `stored_turns` turns come from its
        thread.

        Raises `InvalidRequestError`, also on timeout, and `PromptTooLongError` without tokenizing
        for a prompt far beyond the context.
        """
        try:
            return await self._threads.run(partial(self._render, call, stored_turns))
        except TimeoutError:
            raise InvalidRequestError(
                "messages: the model's chat template and tokenizer take too long for this prompt"
            ) from None

    def _parse(self, kind: type[ConversationT], body: bytes, version: ApiVersion) -> ConversationT:
        call = parse(kind, body)
        check_call(call, version)
        check_content_supported(call)
        return with_file_texts(call, self._file_text)

    def _render(self, call: Conversation, stored_turns: int) -> Prompt:
        check_order(call.messages, stored_turns=stored_turns)
        check_choice(call)
        if isinstance(call, MessagesRequest):
            check_generation_supported(call)
        _warn_of_server_tools(call)
        return self._renderer.render(call, self._context_tokens())


def _warn_of_server_tools(call: Conversation) -> None:
    server_tools = [tool.type for tool in call.tools if isinstance(tool, ServerTool)]
    if server_tools:
        _log.warning("ignoring tools that only the hosted API can run: %s", ", ".join(server_tools))


def is_claude_code(headers: Mapping[str, str]) -> bool:
    """Return whether the client is Claude Code.

    After an `error` event in mid-stream it retries once without streaming, with a timeout of 300 s;
    after a connection that ended it retries the stream up to ten times (2.1.330).
    """
    return headers.get("user-agent", "").startswith("claude-cli/")


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
