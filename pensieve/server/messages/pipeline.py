"""From a request's bytes to the call, and from the call to its prompt, the same way for `messages` and `count_tokens`.

Parsing, rendering and tokenizing happen in worker threads, the calls' only crossings between threads: how long they
take is the tokenizer's secret, and the streams of other clients wait for nobody. A crossing costs about 0.1 ms.
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
from pensieve.server.deadline_threads import DeadlineThreads
from pensieve.server.http.request_body import read_body
from pensieve.server.messages.sessions import AGENT_HEADER, SESSION_HEADER
from pensieve.server.worker_thread import run_in_thread

_log = logging.getLogger("pensieve.server")

_AGENT_HEADERS = (AGENT_HEADER, "x-claude-code-parent-agent-id")

# Rendering keeps a core busy: more of it at once takes no less time, and makes the event loop wait behind each of them.
RENDERED_AT_ONCE = 4
# Rendering and tokenizing as many letters as any context holds, 8 million, takes 10 s (2026-11-30,
# two-core Linux). A tokenizer may have expressions that take hours for some texts.
RENDER_S = 120.0

ConversationT = TypeVar("ConversationT", bound=Conversation)


class RequestPipeline:
    """Reads calls for one served model. file_text: what an uploaded file says, by its id; raises `NotFoundError`.

    spoken: answers as they were generated, in whose words later prompts have them. context: how many tokens a prompt and its
    answer may be now.
    """

    def __init__(
        self,
        model: ServedModel,
        file_text: FileText,
        spoken: GeneratedAnswers,
        context: Callable[[], int],
        threads: DeadlineThreads | None = None,
    ) -> None:
        self._file_text = file_text
        self._context = context
        self._threads = threads or DeadlineThreads(RENDERED_AT_ONCE, RENDER_S)
        self._renderer = PromptRenderer(
            model.tokenizer, model.dialect, model.context_tokens, spoken
        )

    async def read(self, request: Request, kind: type[ConversationT]) -> tuple[ConversationT, int]:
        """The call in the request's body, and the body's length in bytes. Raises what `parse` and `read_body` raise."""
        body = await read_body(request)
        headers = request.headers
        edition = api_version_of(
            headers.get("anthropic-version"), headers.get("anthropic-beta", "")
        )
        return await self.parse(kind, body, edition), len(body)

    async def parse(
        self, kind: type[ConversationT], body: bytes, edition: ApiVersion | None = None
    ) -> ConversationT:
        """The call in `body`. Raises `InvalidRequestError`, `RequestTooLargeError`, and `NotFoundError` for a file."""
        return await run_in_thread(partial(self._parse, kind, body, edition or ApiVersion()))

    async def render(self, call: Conversation, *, kept: int = 0) -> Prompt:
        """The prompt of a whole conversation, of whose turns a thread already held `kept`.

        Raises `InvalidRequestError`, also where it takes too long, and `PromptTooLongError` for one so long that its tokens are
        not made.
        """
        try:
            return await self._threads.run(partial(self._render, call, kept))
        except TimeoutError:
            raise InvalidRequestError(
                "messages: the model's chat template and tokenizer take too long for this prompt"
            ) from None

    def _parse(self, kind: type[ConversationT], body: bytes, edition: ApiVersion) -> ConversationT:
        call = parse(kind, body)
        check_call(call, edition)
        check_content_supported(call)
        return with_file_texts(call, self._file_text)

    def _render(self, call: Conversation, kept: int) -> Prompt:
        check_order(call.messages, kept=kept)
        check_choice(call)
        if isinstance(call, MessagesRequest):
            check_generation_supported(call)
        _warn_of_tools(call)
        return self._renderer.render(call, self._context())


def _warn_of_tools(call: Conversation) -> None:
    hosted = [tool.type for tool in call.tools if isinstance(tool, ServerTool)]
    if hosted:
        _log.warning("left out, since only the hosted API can run them: %s", ", ".join(hosted))


def is_claude_code(headers: Mapping[str, str]) -> bool:
    """Whether Claude Code asks. After an `error` event in mid-stream it asks once more without streaming and gives that 300 s;
    after a connection that ended it asks for the same stream again, up to ten times (seen with 2.1.330).
    """
    return headers.get("user-agent", "").startswith("claude-cli/")


def priority_of(headers: Mapping[str, str], call: Conversation) -> Priority:
    """Who waits for the answer. Claude Code's sub-agents say so; what it asks without tools are titles and summaries."""
    if any(name in headers for name in _AGENT_HEADERS):
        return "agent"
    has_own_tools = any(not isinstance(tool, ServerTool) for tool in call.tools)
    if SESSION_HEADER in headers and not has_own_tools:
        return "side"
    return "main"
